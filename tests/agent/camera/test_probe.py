from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image
from scripted_source import ScriptedSource, picture

from fer_agent.camera import probe as module
from fer_agent.camera.probe import CameraReport, probe, save_picture
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import CameraConfig
from fer_agent.errors import CameraError
from fer_agent.vision.records import Faces, Frame

if TYPE_CHECKING:
    from pathlib import Path


class OneLargeFace:
    def detect(self, frame: Frame) -> Faces:
        return Faces(
            xyxy=np.array([[10, 10, 40, 60]], np.float32),
            score=np.ones(1, np.float32),
            landmarks=np.zeros((1, 5, 2), np.float32),
            frame_size=frame.size,
        )


def folder(path: Path, luma: Any) -> Path:
    path.mkdir()
    for number in range(12):
        Image.fromarray(luma).save(path / f"{number}.png")
    return path


def look(path: Path, **settings: Any) -> tuple[CameraReport, Frame]:
    config = CameraConfig(source=str(path), fps=100.0, **settings)
    return probe("tried", config, seconds=5, long_side=320, detector=OneLargeFace())


SHARP = np.random.default_rng(5).integers(60, 200, (480, 640), dtype=np.uint8)


def test_a_good_camera_is_measured_and_needs_no_advice(tmp_path: Path) -> None:
    report, frame = look(folder(tmp_path / "f", SHARP), pace="fast")
    assert (report.width, report.height) == frame.size == (640, 480)
    assert report.fps == pytest.approx(100, abs=1)
    assert (report.frames, report.dropped) == (12, 0)
    assert report.brightness == pytest.approx(SHARP.mean(), abs=0.5)
    assert report.faces == (50.0,)
    assert report.smallest_face_px == 24.0
    assert report.smallest_good_face_px == 48.0
    assert report.advice == report.faults == ()


@pytest.mark.parametrize(
    ("luma", "words"),
    [
        (SHARP // 8, "dark"),
        (np.clip(SHARP, 230, 255).astype(np.uint8), "overexposed"),
        (np.asarray(cv2.GaussianBlur(SHARP, (0, 0), 9)), "blurred"),
    ],
)
def test_a_bad_picture_gets_advice(tmp_path: Path, luma: Any, words: str) -> None:
    report, _ = look(folder(tmp_path / "f", luma), pace="fast")
    assert any(words in advice for advice in report.advice)


def test_the_time_asked_for_is_enough(tmp_path: Path) -> None:
    config = CameraConfig(source=str(folder(tmp_path / "f", SHARP)), fps=100.0, pace="fast")
    report, _ = probe("tried", config, seconds=0.05, long_side=320)
    assert report.frames == 6
    assert report.faces is None


def test_a_camera_that_is_not_there_ends_the_probe_with_the_reason() -> None:
    config = CameraConfig(source="/dev/video63")
    with pytest.raises(CameraError, match="there is no camera at /dev/video63") as caught:
        probe("tried", config, seconds=60, long_side=320)
    assert "camera list" in caught.value.remedy


def test_a_camera_that_opens_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = ScriptedSource([picture(captured_ns=1), picture(captured_ns=2)])
    slow.open = lambda: time.sleep(0.3) or ScriptedSource.open(slow)  # type: ignore[method-assign, func-returns-value]

    def make_camera(name: str, config: CameraConfig, on_status: Any) -> ThreadedCamera:
        return ThreadedCamera(slow, name=name, gap_s=config.gap_s, live=True, on_status=on_status)

    monkeypatch.setattr(module, "make_camera", make_camera)
    report, _ = probe("slow", CameraConfig(source="x", gap_s=0.05), seconds=0.0, long_side=320)
    assert report.faults == ()


def test_the_remedy_is_the_faults_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraError, match="need picamera2") as caught:
        probe("pi", CameraConfig(source="picam:0"), seconds=60, long_side=320)
    assert "python3-picamera2" in caught.value.remedy


def test_a_picture_is_saved_where_it_was_asked_for(tmp_path: Path) -> None:
    frame = Frame(SHARP, 1, 1)
    save_picture(frame, tmp_path / "look.png")
    assert (cv2.imread(str(tmp_path / "look.png"))[:, :, 0] == SHARP).all()
    for path in (tmp_path / "look.txt", tmp_path / "nowhere" / "look.png"):
        with pytest.raises(CameraError, match="cannot write"):
            save_picture(frame, path)
