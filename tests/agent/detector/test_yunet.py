from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from fer_agent.config.model import DetectorConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.errors import InferenceError, ModelContractError
from fer_agent.vision.records import Frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_agent.inference.onnx import OnnxSession
    from fer_agent.vision.records import Bgr, Float32Array

    AsFrame = Callable[[Bgr], Frame]


class SizeRecordingSession:
    """YuNet, and the input sizes it was asked for."""

    def __init__(self, session: OnnxSession) -> None:
        self._session = session
        self.sizes: list[tuple[int, ...]] = []

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        return self._session.input_shape

    def run(self, tensor: NDArray[np.generic]) -> Mapping[str, NDArray[np.generic]]:
        self.sizes.append(tensor.shape[2:])
        return self._session.run(tensor)


class OtherNetwork:
    """Stands for a network that is not YuNet: one output, or an input it refuses."""

    def __init__(self, shape: tuple[int | str | None, ...], *, refuses: bool = False) -> None:
        self.input_shape = shape
        self._refuses = refuses

    def run(self, tensor: NDArray[np.generic]) -> Mapping[str, NDArray[np.generic]]:
        if self._refuses:
            raise InferenceError("no such input", remedy="none")
        return {"cls_8": tensor}


@pytest.fixture
def reference(yunet_file: Path, tmp_path: Path) -> cv2.FaceDetectorYN:
    """OpenCV's own YuNet; it reads static graphs only, so the sizes are folded in first."""
    import onnxruntime

    static = tmp_path / "static.onnx"
    options = onnxruntime.SessionOptions()
    for name, length in (("batch", 1), ("height", 640), ("width", 640)):
        options.add_free_dimension_override_by_name(name, length)
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(static)
    onnxruntime.InferenceSession(str(yunet_file), options, providers=["CPUExecutionProvider"])
    return cv2.FaceDetectorYN.create(str(static), "", (320, 320), 0.6, 0.3, 5000)


def iou(a: Float32Array, b: Float32Array) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def test_the_same_faces_as_opencvs_own_yunet(
    yunet: OnnxSession,
    reference: cv2.FaceDetectorYN,
    clip_frames: list[Bgr],
    astronaut: Bgr,
    as_frame: AsFrame,
) -> None:
    detector = YuNetDetector(yunet, DetectorConfig())
    compared = 0
    for picture in [*clip_frames, astronaut]:
        faces = detector.detect(as_frame(picture))
        scale = 320 / max(picture.shape)
        size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
        reference.setInputSize(size)
        _, rows = reference.detect(cv2.resize(picture, size))
        rows = np.empty((0, 15), np.float32) if rows is None else rows
        stretch = np.array([picture.shape[1] / size[0], picture.shape[0] / size[1]], np.float32)
        assert len(faces) == len(rows)
        for row in rows:
            box = np.concatenate((row[:2], row[:2] + row[2:4])) * np.tile(stretch, 2)
            nearest = int(np.argmax([iou(box, candidate) for candidate in faces.xyxy]))
            assert iou(box, faces.xyxy[nearest]) >= 0.95
            assert abs(row[14] - faces.score[nearest]) <= 0.02
            points = row[4:14].reshape(5, 2) * stretch
            assert np.abs(points - faces.landmarks[nearest]).max() < 1.0
            compared += 1
    assert compared >= 15


def test_a_portrait_has_one_face_with_its_parts_in_place(
    yunet: OnnxSession, astronaut: Bgr, as_frame: AsFrame
) -> None:
    faces = YuNetDetector(yunet, DetectorConfig()).detect(as_frame(astronaut))
    assert len(faces) == 1
    assert faces.score[0] > 0.8
    left, top, right, bottom = faces.xyxy[0]
    right_eye, left_eye, nose, right_mouth, left_mouth = faces.landmarks[0]
    assert left < right_eye[0] < nose[0] < left_eye[0] < right
    assert top < right_eye[1] < nose[1] < right_mouth[1] < bottom
    assert right_mouth[0] < left_mouth[0]


def test_boxes_are_pixels_of_the_frame_whatever_its_size(
    yunet: OnnxSession, astronaut: Bgr, as_frame: AsFrame
) -> None:
    detector = YuNetDetector(yunet, DetectorConfig())
    small = detector.detect(as_frame(astronaut))
    large = detector.detect(as_frame(np.asarray(cv2.resize(astronaut, None, fx=2.5, fy=2.5))))
    assert large.frame_size == (1280, 1280)
    assert iou(large.xyxy[0] / 2.5, small.xyxy[0]) > 0.95
    again = detector.detect(as_frame(astronaut))
    assert np.array_equal(again.xyxy, small.xyxy)


def test_a_wide_frame_is_padded_and_not_stretched(
    yunet: OnnxSession, astronaut: Bgr, as_frame: AsFrame
) -> None:
    session = SizeRecordingSession(yunet)
    detector = YuNetDetector(session, DetectorConfig())
    session.sizes.clear()
    wide = np.zeros((512, 1000, 3), np.uint8)
    wide[:, 488:] = astronaut
    (box,) = detector.detect(as_frame(wide)).xyxy
    assert session.sizes == [(192, 320)]
    alone = YuNetDetector(yunet, DetectorConfig(long_side=160)).detect(as_frame(astronaut)).xyxy[0]
    assert iou(box - np.array([488, 0, 488, 0], np.float32), alone) > 0.85


def test_a_gray_frame_is_searched_too(yunet: OnnxSession, astronaut: Bgr) -> None:
    luma = np.asarray(cv2.cvtColor(astronaut, cv2.COLOR_BGR2GRAY), np.uint8)
    gray = YuNetDetector(yunet, DetectorConfig()).detect(Frame(luma, 0, 0))
    as_colour = YuNetDetector(yunet, DetectorConfig()).detect(
        Frame(luma, 0, 0, lambda: np.repeat(luma[:, :, np.newaxis], 3, axis=2))
    )
    assert len(gray) == 1
    assert np.allclose(gray.xyxy, as_colour.xyxy)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (2, 3)])
def test_frames_too_small_for_a_face_have_none(
    yunet: OnnxSession, size: tuple[int, int], as_frame: AsFrame
) -> None:
    faces = YuNetDetector(yunet, DetectorConfig()).detect(
        as_frame(np.full((*size, 3), 90, np.uint8))
    )
    assert len(faces) == 0
    assert faces.landmarks.shape == (0, 5, 2)
    assert faces.frame_size == (size[1], size[0])


@pytest.mark.parametrize(
    ("long_side", "looks"),
    [(320, [(256, 320)]), (1280, [(960, 1280), (128, 160)])],
)
def test_a_face_that_fills_the_frame_is_found_by_a_second_look_if_need_be(
    yunet: OnnxSession,
    astronaut: Bgr,
    as_frame: AsFrame,
    long_side: int,
    looks: list[tuple[int, int]],
) -> None:
    session = SizeRecordingSession(yunet)
    detector = YuNetDetector(session, DetectorConfig(long_side=long_side))
    session.sizes.clear()
    close = astronaut[80:170, 165:285]  # hair and chin are outside
    faces = detector.detect(as_frame(np.asarray(cv2.resize(close, (1280, 960)))))
    assert session.sizes == looks
    assert len(faces) == 1
    assert iou(faces.xyxy[0], np.array([100, 0, 1150, 1000], np.float32)) > 0.8


def test_an_empty_scene_costs_one_look(yunet: OnnxSession, as_frame: AsFrame) -> None:
    session = SizeRecordingSession(yunet)
    detector = YuNetDetector(session, DetectorConfig())
    session.sizes.clear()
    ramp = np.repeat(np.linspace(0, 255, 640).astype(np.uint8)[np.newaxis], 480, axis=0)
    assert len(detector.detect(as_frame(np.repeat(ramp[:, :, np.newaxis], 3, axis=2)))) == 0
    assert session.sizes == [(256, 320)]


def test_the_score_threshold_is_the_configs(
    yunet: OnnxSession, astronaut: Bgr, as_frame: AsFrame
) -> None:
    strict = YuNetDetector(yunet, DetectorConfig(score=0.99))
    assert len(strict.detect(as_frame(astronaut))) == 0


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (OtherNetwork(("N", 1, 48, 48)), r"input is \['N', 1, 48, 48\]"),
        (OtherNetwork(("N", 3, 640, 640)), "any height"),
        (OtherNetwork(("N", 3)), "input is"),
        (OtherNetwork(("N", 3, "h", "w")), "output cls_8 is float32"),
        (OtherNetwork(("N", 3, "h", "w"), refuses=True), "does not take a picture"),
    ],
)
def test_another_network_is_refused_at_once(network: OtherNetwork, message: str) -> None:
    with pytest.raises(ModelContractError, match=message) as caught:
        YuNetDetector(network, DetectorConfig())
    assert "yunet_s_dynamic" in caught.value.remedy
