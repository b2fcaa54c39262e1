from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from fer_agent.camera.backends.replay import ReplaySource
from fer_agent.errors import CameraError
from fer_agent.vision.records import Frame, Gap

if TYPE_CHECKING:
    from pathlib import Path


def folder(path: Path, count: int) -> Path:
    path.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 6), (number, 0, 200)).save(path / f"{number}.png")
    return path


def source(path: Path, **settings: Any) -> ReplaySource:
    return ReplaySource(path, **{"fps": 50.0, "pace": "fast", "loop": False, **settings})


def read_all(replay: ReplaySource, limit: int = 100) -> list[Frame | Gap]:
    replay.open()
    items = []
    while len(items) < limit:
        try:
            item = replay.read()
        except TimeoutError:
            continue
        if item is None:
            break
        items.append(item)
    replay.close()
    return items


def test_fast_pace_keeps_the_clips_own_time(tmp_path: Path) -> None:
    frames = read_all(source(folder(tmp_path / "f", 5)))
    times_ns = [frame.captured_ns for frame in frames]
    assert np.diff(times_ns).tolist() == [20_000_000] * 4
    assert [frame.number for frame in frames if isinstance(frame, Frame)] == [1, 2, 3, 4, 5]


def test_own_pace_gives_no_picture_before_it_is_due(tmp_path: Path) -> None:
    frames = read_all(source(folder(tmp_path / "f", 4), pace="own"))
    assert (frames[-1].captured_ns - frames[0].captured_ns) / 1e9 >= 0.055


def test_waiting_for_a_slow_picture_can_be_interrupted(tmp_path: Path) -> None:
    replay = source(folder(tmp_path / "f", 2), pace="own", fps=0.001)
    replay.open()
    assert isinstance(replay.read(), Frame)
    started_s = time.monotonic()
    with pytest.raises(TimeoutError):
        replay.read()
    assert time.monotonic() - started_s < 100
    replay.close()


def test_luma_and_colour_come_from_the_same_picture(tmp_path: Path) -> None:
    (frame, *_) = read_all(source(folder(tmp_path / "f", 1)))
    assert isinstance(frame, Frame)
    assert frame.size == (8, 6)
    assert frame.luma.flags.c_contiguous
    assert abs(int(frame.luma[0, 0]) - round(0.114 * 200)) <= 1
    assert frame.bgr()[0, 0].tolist() == [200, 0, 0]


def test_loop_has_a_seam_and_time_goes_on(tmp_path: Path) -> None:
    items = read_all(source(folder(tmp_path / "f", 2), loop=True), limit=6)
    assert [type(item).__name__ for item in items] == ["Frame", "Frame", "Gap"] * 2
    times_ns = [item.captured_ns for item in items if isinstance(item, Frame)]
    assert np.diff(times_ns).tolist() == [20_000_000] * 3


def test_looping_single_image_needs_no_seam(tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    Image.new("L", (8, 6)).save(path)
    assert all(isinstance(item, Frame) for item in read_all(source(path, loop=True), limit=5))


def test_single_image_is_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "still.png"
    Image.new("L", (8, 6)).save(path)
    assert len(read_all(source(path))) == 1


def test_can_be_opened_again(tmp_path: Path) -> None:
    replay = source(folder(tmp_path / "f", 3))
    assert [len(read_all(replay)) for _ in range(2)] == [3, 3]


def test_missing_file_fails_when_opened(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no file or folder"):
        source(tmp_path / "nothing.mp4").open()
