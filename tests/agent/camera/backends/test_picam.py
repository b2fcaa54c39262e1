from __future__ import annotations

import gc
import itertools
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import cv2
import fake_picamera2
import numpy as np
import pytest

from fer_agent.camera.backends.picam import PicamSource
from fer_agent.camera.backends.planes import full_range_frame
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.errors import CameraError
from fer_agent.vision.records import CameraStatus, Frame, Gap

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake_picamera2.World]:
    world = fake_picamera2.World()
    monkeypatch.setattr(fake_picamera2, "world", world)
    monkeypatch.setitem(sys.modules, "picamera2", fake_picamera2)
    yield world
    for camera in world.cameras:
        camera.stop()


def source(**settings: Any) -> PicamSource:
    return PicamSource(**{"number": 0, "width": 96, "height": 64, "fps": 30.0, **settings})


def read(one: PicamSource) -> Frame:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        try:
            frame = one.read()
        except TimeoutError:
            continue
        assert isinstance(frame, Frame)
        return frame
    raise AssertionError("no picture within 60 s")


def test_luma_is_the_y_plane_in_the_drivers_own_buffer(world: fake_picamera2.World) -> None:
    one = source()
    one.open()
    (camera,) = world.cameras
    buffers = list(camera.free)
    frame = read(one)
    assert frame.size == (96, 64)
    assert any(np.shares_memory(frame.luma, buffer) for buffer in buffers)
    assert frame.luma.strides == (128, 1)  # rows are padded, and still nothing was copied
    shade = int(frame.luma[0, 0])
    assert frame.bgr()[10, 10].tolist() == [shade] * 3
    one.close()


def test_every_request_goes_back_when_its_frame_is_gone(world: fake_picamera2.World) -> None:
    one = source()
    one.open()
    for _ in range(50):
        read(one)
    gc.collect()
    assert world.captured == 50
    assert world.released == 50
    one.close()


def test_a_view_keeps_the_buffer_from_being_overwritten(world: fake_picamera2.World) -> None:
    one = source()
    one.open()
    frame = read(one)
    corner = frame.luma[4:8, 4:8]
    shade = int(corner[0, 0])
    del frame
    for _ in range(20):
        read(one)
    assert (corner == shade).all()
    assert world.released == 20
    del corner
    assert world.released == 21
    one.close()


def test_a_slow_taker_never_starves_the_camera(world: fake_picamera2.World) -> None:
    camera = ThreadedCamera(
        source(), name="pi", gap_s=5, live=True, on_status=lambda _: None, deadline_s=5
    )
    for frame in itertools.islice(camera.frames(), 5):
        assert isinstance(frame, Frame)
        before = world.captured
        until_s = time.monotonic() + 60
        while world.captured < before + 8 and time.monotonic() < until_s:
            time.sleep(0.002)
        assert world.captured >= before + 8
    camera.close()
    assert camera.stats().dropped > 10


def test_a_frame_outlives_its_camera(world: fake_picamera2.World) -> None:
    one = source()
    one.open()
    frame = read(one)
    shade = int(frame.luma[0, 0])
    one.close()
    assert (frame.luma == shade).all()
    del frame
    assert world.cameras[0].is_closed


@pytest.mark.parametrize(
    ("wanted", "words", "remedy"),
    [
        ({"fps": 200.0}, "cannot give 200 fps", "8333 to 1000000 us a frame"),
        ({"exposure_ms": 900.0}, "cannot give an exposure of 900 ms", "9 to 500000 us"),
        ({"number": 7}, "there is no camera picam:7; 2 were found", "ribbon cable"),
    ],
)
@pytest.mark.usefixtures("world")
def test_what_the_sensor_cannot_do_is_refused(
    wanted: dict[str, Any], words: str, remedy: str
) -> None:
    with pytest.raises(CameraError, match=words) as caught:
        source(**wanted).open()
    assert remedy in caught.value.remedy


def test_another_size_than_asked_for_is_refused(world: fake_picamera2.World) -> None:
    world.aligned_size = (128, 64)
    with pytest.raises(CameraError, match="cannot give 96x64") as caught:
        source().open()
    assert "128x64" in caught.value.remedy
    assert world.cameras[0].is_closed


def test_another_frame_rate_than_asked_for_is_noticed(world: fake_picamera2.World) -> None:
    world.forced_duration_us = 66_666
    one = source()
    one.open()
    for _ in range(7):  # until the controls have settled
        read(one)
    with pytest.raises(CameraError, match=r"gives 15\.0 fps instead of 30"):
        read(one)
    one.close()


def test_busy_camera_is_told_apart_from_a_broken_one(world: fake_picamera2.World) -> None:
    world.open_error = RuntimeError("Failed to acquire camera: Device or resource busy")
    with pytest.raises(CameraError, match="in use by another program"):
        source().open()
    world.open_error = RuntimeError("Failed to start the sensor: Remote I/O error")
    with pytest.raises(CameraError, match="Remote I/O error"):
        source().open()


def test_a_failing_capture_is_a_fault(world: fake_picamera2.World) -> None:
    one = source()
    one.open()
    world.capture_error = RuntimeError("Camera frontend has timed out")
    with pytest.raises(CameraError, match="frontend has timed out"):
        read(one)
    one.close()


def test_a_wedged_libcamera_is_restarted(world: fake_picamera2.World) -> None:
    statuses: list[CameraStatus] = []
    camera = ThreadedCamera(
        source(), name="pi", gap_s=0.5, live=True, on_status=statuses.append, deadline_s=3
    )
    frames = camera.frames()
    next(frames)
    world.cameras[0].is_wedged = True
    next(item for item in frames if isinstance(item, Gap))
    next(item for item in frames if isinstance(item, Frame))
    camera.close()
    # On a busy machine the first picture may take longer than the gap, and reasons may change.
    states = [state for state, _ in itertools.groupby(status.state.value for status in statuses)]
    assert states[-3:] == ["online", "offline", "online"]
    assert world.cameras[0].is_closed


def test_missing_picamera2_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraError, match="need picamera2") as caught:
        source().open()
    assert "python3-picamera2" in caught.value.remedy


@pytest.mark.hardware
def test_real_pi_camera_gives_frames() -> None:
    one = PicamSource(int(os.environ.get("FER_TEST_PICAM", "0")), width=640, height=480, fps=30)
    one.open()
    try:
        for _ in range(30):
            frame = read(one)
        assert frame.size == (640, 480)
    finally:
        one.close()


@pytest.mark.parametrize("size", [(320, 240), (160, 120), (320, 180), (640, 480)])
def test_the_scaled_colours_are_those_of_the_whole_picture(size: tuple[int, int]) -> None:
    picture = cv2.GaussianBlur(
        np.random.default_rng(5).integers(0, 256, (480, 640, 3)).astype(np.uint8), (0, 0), 6
    )
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    ycrcb = cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb)
    rows = [ycrcb[:, :, 0]]
    for plane in (2, 1):  # U before V, a quarter of the picture each, two of its rows in one
        half = cv2.resize(ycrcb[:, :, plane], (320, 240), interpolation=cv2.INTER_AREA)
        rows.append(half.reshape(120, 640))
    frame = full_range_frame(np.vstack(rows), 640, 1)
    assert frame.to_scaled_bgr is not None
    whole = cv2.resize(frame.bgr(), size)
    off = np.abs(frame.to_scaled_bgr(size).astype(int) - whole)
    assert off.mean() < 1.0
    assert np.percentile(off, 99) <= 4
