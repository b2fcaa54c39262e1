from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from fake_v4l2 import WEBCAM, FakeDriver

from fer_agent.camera.backends import v4l2, v4l2_device
from fer_agent.camera.backends.v4l2 import V4l2Source
from fer_agent.camera.backends.v4l2_device import check_not_busy, holders, query
from fer_agent.errors import CameraError
from fer_agent.vision.records import Frame

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    fake = FakeDriver(WEBCAM)
    (tmp_path / "video0").touch()
    monkeypatch.setattr(fcntl, "ioctl", fake.ioctl)
    monkeypatch.setattr(v4l2, "open_capture", lambda *_: fake)
    return fake


def source(tmp_path: Path, **settings: Any) -> V4l2Source:
    wanted = {"width": 640, "height": 480, "fps": 30.0, **settings}
    return V4l2Source(str(tmp_path / "video0"), **wanted)


@pytest.mark.usefixtures("driver")
def test_device_tells_its_name_and_modes(tmp_path: Path) -> None:
    info = query(str(tmp_path / "video0"))
    assert (info.card, info.driver) == ("Test Cam", "uvcvideo")
    assert [str(mode) for mode in info.modes] == [
        "MJPG 640x480 at 30 fps",
        "MJPG 1280x720 at 30 fps",
        "YUYV 640x480 at 30 fps",
        "YUYV 1280x720 at 10 fps",
    ]


@pytest.mark.parametrize(
    ("size", "fps", "fourcc"),
    [((640, 480), 30.0, "YUYV"), ((1280, 720), 30.0, "MJPG"), ((1280, 720), 10.0, "YUYV")],
)
def test_luma_formats_are_preferred_where_fast_enough(
    tmp_path: Path, driver: FakeDriver, size: tuple[int, int], fps: float, fourcc: str
) -> None:
    source(tmp_path, width=size[0], height=size[1], fps=fps).open()
    assert driver.settings[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*fourcc)
    assert bool(driver.settings[cv2.CAP_PROP_CONVERT_RGB]) == (fourcc == "MJPG")


def test_yuyv_luma_equals_the_gray_of_its_colour(tmp_path: Path, driver: FakeDriver) -> None:
    rng = np.random.default_rng(1)
    raw = np.full((480, 640, 2), 128, np.uint8)
    raw[:, :, 0] = rng.integers(16, 236, (480, 640))
    driver.images = [raw]
    camera = source(tmp_path)
    camera.open()
    frame = camera.read()
    assert isinstance(frame, Frame)
    gray = cv2.cvtColor(frame.bgr(), cv2.COLOR_BGR2GRAY)
    assert np.abs(frame.luma.astype(int) - gray).max() <= 1
    assert frame.luma.flags.c_contiguous


def test_nv12_luma_equals_the_gray_of_its_colour(tmp_path: Path, driver: FakeDriver) -> None:
    driver.offers = (("NV12", 640, 480, 30.0),)
    raw = np.full((720, 640), 128, np.uint8)
    raw[:480] = np.random.default_rng(1).integers(16, 236, (480, 640))
    driver.images = [raw]
    camera = source(tmp_path)
    camera.open()
    frame = camera.read()
    assert isinstance(frame, Frame)
    gray = cv2.cvtColor(frame.bgr(), cv2.COLOR_BGR2GRAY)
    assert np.abs(frame.luma.astype(int) - gray).max() <= 1


@pytest.mark.parametrize("wanted", [{"width": 800}, {"fps": 120.0}])
@pytest.mark.usefixtures("driver")
def test_a_mode_the_device_lacks_is_refused_with_what_it_offers(
    tmp_path: Path, wanted: dict[str, Any]
) -> None:
    with pytest.raises(CameraError, match="cannot give") as caught:
        source(tmp_path, **wanted).open()
    assert caught.value.remedy.endswith("640x480 at 30 fps; 1280x720 at 30 fps; 1280x720 at 10 fps")


def test_a_driver_that_sets_something_else_is_refused(tmp_path: Path, driver: FakeDriver) -> None:
    driver.forced_size = (320, 240)
    with pytest.raises(CameraError, match="cannot give 640x480"):
        source(tmp_path).open()
    assert driver.settings == {}  # released


def test_missing_device_names_the_list_command(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="there is no camera at") as caught:
        source(tmp_path).open()
    assert "camera list" in caught.value.remedy


def test_a_file_that_is_no_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "video0").write_text("no device")
    with pytest.raises(CameraError, match="is no camera"):
        query(str(tmp_path / "video0"))


def test_denied_permission_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:  # root may open anything
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "video0").touch()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(CameraError, match="no permission") as caught:
        source(tmp_path).open()
    assert "usermod -aG" in caught.value.remedy


def test_busy_device_names_its_holder(tmp_path: Path, driver: FakeDriver) -> None:
    import subprocess

    driver.is_busy = True
    path = tmp_path / "video0"
    with path.open() as file, subprocess.Popen(["sleep", "60"], stdin=file) as holder:
        try:
            assert holders(str(path))[holder.pid] == "sleep"
            with pytest.raises(CameraError, match=rf"in use by sleep \({holder.pid}\)"):
                source(tmp_path).open()
        finally:
            holder.kill()
    with pytest.raises(CameraError, match="in use") as caught:
        check_not_busy(str(path))
    assert "fuser" in caught.value.remedy


def test_a_camera_that_comes_back_under_another_number_is_found(
    tmp_path: Path, driver: FakeDriver
) -> None:
    camera = source(tmp_path)
    camera.open()
    camera.close()
    (tmp_path / "video0").rename(tmp_path / "video3")
    driver.images = [np.zeros((480, 640, 2), np.uint8)]
    camera.open()
    assert isinstance(camera.read(), Frame)


def test_another_camera_under_the_old_number_is_not_taken(
    tmp_path: Path, driver: FakeDriver
) -> None:
    camera = source(tmp_path)
    camera.open()
    camera.close()
    driver.bus = b"usb-2"
    with pytest.raises(CameraError, match="there is no camera at"):
        camera.open()


def test_metadata_node_is_no_camera(tmp_path: Path, driver: FakeDriver) -> None:
    driver.is_metadata = True
    with pytest.raises(CameraError, match="gives no pictures"):
        source(tmp_path).open()


def test_unplugging_while_reading_is_told_apart_from_silence(
    tmp_path: Path, driver: FakeDriver
) -> None:
    camera = source(tmp_path)
    camera.open()
    with pytest.raises(TimeoutError):
        camera.read()
    driver.is_gone = True
    with pytest.raises(CameraError, match="there is no camera at"):
        camera.read()


def test_garbage_is_skipped_and_too_much_of_it_is_a_fault(
    tmp_path: Path, driver: FakeDriver
) -> None:
    good = np.zeros((480, 640, 2), np.uint8)
    garbage = np.zeros((1, 77), np.uint8)
    camera = source(tmp_path)
    camera.open()
    driver.images = [garbage] * 3 + [good] + [garbage] * 10
    for _ in range(3):
        with pytest.raises(TimeoutError):
            camera.read()
    assert isinstance(camera.read(), Frame)
    for _ in range(9):
        with pytest.raises(TimeoutError):
            camera.read()
    with pytest.raises(CameraError, match="do not decode"):
        camera.read()


def test_a_number_is_a_device_node() -> None:
    with pytest.raises(CameraError, match="/dev/video63"):
        V4l2Source("63", width=640, height=480, fps=30).open()


@pytest.mark.hardware
def test_real_camera_gives_frames() -> None:
    path = os.environ.get("FER_TEST_V4L2", "/dev/video0")
    mode = v4l2_device.query(path).modes[0]
    camera = V4l2Source(path, width=mode.width, height=mode.height, fps=mode.fps or 30)
    camera.open()
    try:
        frame = camera.read()
        assert isinstance(frame, Frame)
        assert frame.size == (mode.width, mode.height)
    finally:
        camera.close()
