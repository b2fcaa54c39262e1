from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from fer_agent.config.model import DetectorConfig
from fer_agent.detector.haar import HaarDetector
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.errors import ModelFileError
from fer_agent.vision.records import Frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.inference.onnx import OnnxSession
    from fer_agent.vision.records import Bgr, Faces

    AsFrame = Callable[[Bgr], Frame]


@pytest.fixture(scope="module")
def hopper() -> Bgr:
    cbook = pytest.importorskip("matplotlib.cbook", reason="matplotlib has the portrait")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(cv2.imread(file.name), np.uint8)


@pytest.fixture(params=["astronaut", "hopper"])
def portrait(request: pytest.FixtureRequest) -> Bgr:
    picture: Bgr = request.getfixturevalue(request.param)
    return picture


def centre(faces: Faces) -> np.ndarray:
    return (faces.xyxy[0, :2] + faces.xyxy[0, 2:]) / 2


def test_portraits_are_found_in_yunets_framing(
    portrait: Bgr, yunet: OnnxSession, as_frame: AsFrame
) -> None:
    frame = as_frame(portrait)
    haar = HaarDetector(DetectorConfig()).detect(frame)
    reference = YuNetDetector(yunet, DetectorConfig()).detect(frame)
    assert len(haar) == len(reference) == 1
    size = np.sqrt(np.prod(haar.xyxy[0, 2:] - haar.xyxy[0, :2]))
    wanted = np.sqrt(np.prod(reference.xyxy[0, 2:] - reference.xyxy[0, :2]))
    assert 0.8 < size / wanted < 1.25
    assert np.abs(centre(haar) - centre(reference)).max() < 0.15 * wanted
    assert np.isnan(haar.landmarks).all()
    assert 0.6 <= haar.score[0] <= 1


@pytest.mark.parametrize("face_px", [45, 80, 130])
def test_portraits_are_found_while_they_move_and_scale(portrait: Bgr, face_px: int) -> None:
    luma = cv2.cvtColor(portrait, cv2.COLOR_BGR2GRAY)
    detector = HaarDetector(DetectorConfig())
    whole = detector.detect(Frame(luma, 0, 0))
    scale = face_px / float(whole.xyxy[0, 3] - whole.xyxy[0, 1])
    small = cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = false_alarms = 0
    positions = [(100 + 11 * step, 90 + 7 * step) for step in range(10)]
    for x, y in positions:
        shift = np.array([x, y]) - centre(whole) * scale
        scene = cv2.warpAffine(small, np.column_stack((np.eye(2), shift)), (320, 240))
        faces = detector.detect(Frame(np.asarray(scene, np.uint8), 0, 0))
        middle = (faces.xyxy[:, :2] + faces.xyxy[:, 2:]) / 2
        hits = int((np.abs(middle - np.array([x, y])).max(axis=1) < face_px / 4).sum())
        found += hits
        false_alarms += len(faces) - hits
    assert found >= 9
    assert false_alarms <= 1


def test_the_best_score_comes_first(astronaut: Bgr, hopper: Bgr) -> None:
    side_by_side = np.hstack([astronaut, cv2.resize(hopper, (512, 600))[:512]])
    luma = np.asarray(cv2.cvtColor(side_by_side, cv2.COLOR_BGR2GRAY), np.uint8)
    faces = HaarDetector(DetectorConfig()).detect(Frame(luma, 0, 0))
    assert len(faces) == 2
    assert faces.score[0] >= faces.score[1]


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (40, 20), (480, 640)])
def test_a_plain_picture_has_no_face(size: tuple[int, int]) -> None:
    faces = HaarDetector(DetectorConfig()).detect(Frame(np.full(size, 90, np.uint8), 0, 0))
    assert len(faces) == 0
    assert faces.frame_size == (size[1], size[0])


def test_opencv_without_cascades_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(ModelFileError, match="no usable face cascade") as caught:
        HaarDetector(DetectorConfig())
    assert "opencv-python-headless" in caught.value.remedy
