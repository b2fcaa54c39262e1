from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from fer_agent.camera.backends.child import ChildEndedError, PictureChild
from fer_agent.camera.backends.csi import csi_source
from fer_agent.camera.backends.gstreamer import GstSource
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.errors import CameraError
from fer_agent.vision.records import CameraStatus, Frame, Gap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def gst(require_program: Callable[[str], Path]) -> Path:
    return require_program("gst-launch-1.0")


def pattern(kind: str = "white", count: int = -1, **settings: Any) -> GstSource:
    elements = ["videotestsrc", f"pattern={kind}", f"num-buffers={count}", "is-live=true"]
    return GstSource(elements, **{"width": 320, "height": 240, "name": "the test", **settings})


def read(source: GstSource) -> Frame | Gap | None:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        try:
            return source.read()
        except TimeoutError:
            continue
    raise AssertionError("no picture within 60 s")


@pytest.fixture
def opened() -> Iterator[Callable[[GstSource], GstSource]]:
    sources = []

    def open_source(source: GstSource) -> GstSource:
        sources.append(source)
        source.open()
        return source

    yield open_source
    for source in sources:
        source.close()


@pytest.mark.usefixtures("gst")
def test_pictures_have_full_range_luma_and_their_colour(
    opened: Callable[[GstSource], GstSource],
) -> None:
    frame = read(opened(pattern("red")))
    assert isinstance(frame, Frame)
    assert frame.size == (320, 240)
    blue, green, red = (int(value) for value in frame.bgr()[120, 160])
    assert (blue < 10, green < 10, red > 245) == (True, True, True)
    white = read(opened(pattern("white")))
    assert isinstance(white, Frame)
    assert int(white.luma.min()) >= 254


@pytest.mark.usefixtures("gst")
def test_a_file_decoded_by_gstreamer_comes_whole_and_ends(
    tmp_path: Path, opened: Callable[[GstSource], GstSource]
) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for shade in range(0, 250, 10):
        writer.write(np.full((240, 320, 3), shade, np.uint8))
    writer.release()
    source = opened(
        GstSource(
            ["filesrc", f"location={path}", "!", "decodebin"],
            width=320,
            height=240,
            name="the file",
            endless=False,
            full_range=True,
        )
    )
    shades = []
    while isinstance(frame := read(source), Frame):
        shades.append(float(frame.luma.mean()))
    assert frame is None
    assert np.allclose(shades, range(0, 250, 10), atol=2)


@pytest.mark.usefixtures("gst")
def test_a_camera_that_ends_is_a_fault(opened: Callable[[GstSource], GstSource]) -> None:
    source = opened(pattern(count=2))
    assert isinstance(read(source), Frame)
    assert isinstance(read(source), Frame)
    with pytest.raises(CameraError, match="the test stopped"):
        read(source)


@pytest.mark.usefixtures("gst")
@pytest.mark.parametrize(
    ("elements", "message", "remedy"),
    [
        (["nosuchelement"], "element nosuchelement", "apt-get install"),
        (["filesrc", "location=/nope", "!", "decodebin"], "Resource not found", "gst-launch"),
    ],
)
def test_gstreamers_own_words_are_passed_on(
    elements: list[str],
    message: str,
    remedy: str,
    opened: Callable[[GstSource], GstSource],
) -> None:
    source = opened(GstSource(elements, width=64, height=48, name="the test"))
    with pytest.raises(CameraError, match=message) as caught:
        read(source)
    assert remedy in caught.value.remedy


@pytest.mark.usefixtures("gst")
def test_csi_without_a_jetson_says_what_is_missing(
    opened: Callable[[GstSource], GstSource],
) -> None:
    source = opened(csi_source(0, width=640, height=480, fps=29.97))
    with pytest.raises(CameraError, match="nvarguscamerasrc") as caught:
        read(source)
    assert "nvidia-l4t-gstreamer" in caught.value.remedy


def test_csi_asks_argus_for_the_mode() -> None:
    command = " ".join(csi_source(1, width=640, height=480, fps=29.97).command(5))
    assert "nvarguscamerasrc sensor-id=1" in command
    assert "framerate=2997/100" in command
    assert "fdsink fd=5" in command


def test_missing_gstreamer_names_the_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CameraError, match="not installed") as caught:
        pattern().open()
    assert "gstreamer1.0-tools" in caught.value.remedy


def test_a_size_with_padded_rows_is_refused() -> None:
    with pytest.raises(CameraError, match="cannot give 318x240"):
        pattern(width=318).open()


def children() -> set[int]:
    """Return the process ids of this process's children."""
    lists = Path("/proc/self/task").glob("*/children")
    return {int(pid) for one in lists for pid in one.read_text(encoding="ascii").split()}


@pytest.mark.usefixtures("gst")
def test_a_killed_child_is_replaced_and_frames_go_on() -> None:
    source = pattern("ball")
    statuses: list[CameraStatus] = []
    camera = ThreadedCamera(
        source, name="csi", gap_s=30, live=True, on_status=statuses.append, deadline_s=60
    )
    frames = camera.frames()
    before = children()
    assert isinstance(next(frames), Frame)
    (first,) = children() - before
    os.kill(first, 9)
    until_s = time.monotonic() + 60
    while camera.stats().reopened == 0 and time.monotonic() < until_s:
        next(frames)
    assert isinstance(next(frames), Frame)
    camera.close()
    assert camera.stats().reopened == 1
    assert [status.state.value for status in statuses] == ["online", "offline", "online"]
    assert not Path(f"/proc/{first}").exists()  # reaped


STUBBORN = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('x' * 300000, flush=True); time.sleep(600)"
)


def test_a_child_that_ignores_the_polite_end_is_killed_and_its_chatter_never_blocks_it() -> None:
    before = children()
    child = PictureChild(lambda _: [sys.executable, "-c", STUBBORN], 100)
    (pid,) = children() - before
    for _ in range(20):  # until its 300 kB of chatter are read and the handler is in place
        with pytest.raises(TimeoutError):
            child.read(0.1)
    child.close()
    assert not Path(f"/proc/{pid}").exists()


def test_pictures_arrive_whole_however_they_are_cut() -> None:
    script = (
        "import os, sys, time\n"
        "for _ in range(30): os.write(int(sys.argv[1]), bytes(range(100))); time.sleep(0.001)\n"
        "print('goodbye')"
    )
    child = PictureChild(lambda fd: [sys.executable, "-c", script, str(fd)], 1000)
    for _ in range(3):
        picture = child.read(60)
        assert picture.tolist() == list(range(100)) * 10
    with pytest.raises(ChildEndedError, match="goodbye"):
        child.read(60)
    child.close()


def test_a_child_that_falls_silent_before_it_ends_is_an_ended_child() -> None:
    script = "import os, time; os.close(1); os.close(2); time.sleep(0.3)"
    child = PictureChild(lambda _: [sys.executable, "-c", script], 100)
    with pytest.raises(ChildEndedError):
        child.read(60)
    child.close()


def test_a_program_that_cannot_be_started_leaves_nothing_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        PictureChild(lambda _: ["/no/such/program"], 100)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.hardware
def test_real_csi_camera_gives_frames(opened: Callable[[GstSource], GstSource]) -> None:
    sensor = int(os.environ.get("FER_TEST_CSI", "0"))
    frame = read(opened(csi_source(sensor, width=640, height=480, fps=30)))
    assert isinstance(frame, Frame)
    assert 5 < float(frame.luma.mean()) < 250
