from __future__ import annotations

import numpy as np
import pytest

from fer_agent.detector.letterbox import Letterbox
from fer_agent.vision.records import Frame


@pytest.mark.parametrize(
    ("frame_size", "shape"),
    [
        ((640, 480), (1, 3, 256, 320)),
        ((480, 640), (1, 3, 320, 256)),
        ((100, 100), (1, 3, 320, 320)),
        ((5000, 2), (1, 3, 32, 320)),
    ],
)
def test_the_long_side_is_kept_and_both_are_multiples_of_32(
    frame_size: tuple[int, int], shape: tuple[int, ...]
) -> None:
    letterbox = Letterbox(frame_size, 320)
    assert letterbox.tensor.shape == shape
    assert letterbox.input_size == shape[:1:-1]


def test_the_picture_lies_in_the_corner_and_the_rest_is_black() -> None:
    bgr = np.zeros((48, 64, 3), np.uint8)
    bgr[:] = (10, 20, 30)
    letterbox = Letterbox((64, 48), 64)
    letterbox.fill(Frame(bgr[:, :, 0].copy(), 0, 0, lambda: bgr))
    tensor = letterbox.tensor
    assert tensor.shape == (1, 3, 64, 64)
    assert [np.unique(plane[:48]).tolist() for plane in tensor[0]] == [[10.0], [20.0], [30.0]]
    assert not tensor[0, :, 48:].any()


def test_buffers_are_reused_and_filled_anew() -> None:
    letterbox = Letterbox((64, 64), 64)
    first = letterbox.tensor
    for shade in (255, 3):
        letterbox.fill(Frame(np.full((64, 64), shade, np.uint8), 0, 0))
        assert np.unique(letterbox.tensor).tolist() == [float(shade)]
    assert letterbox.tensor is first


def test_a_camera_that_scales_by_itself_is_asked_for_the_size_wanted() -> None:
    asked = []

    def scaled(size: tuple[int, int]) -> np.ndarray:
        asked.append(size)
        return np.full((*size[::-1], 3), (10, 20, 30), np.uint8)

    letterbox = Letterbox((640, 480), 320)
    luma = np.zeros((480, 640), np.uint8)
    letterbox.fill(Frame(luma, 0, 0, lambda: pytest.fail("the whole picture"), scaled))
    assert asked == [(320, 240)]
    planes = [np.unique(plane[:240]).tolist() for plane in letterbox.tensor[0]]
    assert planes == [[10.0], [20.0], [30.0]]


def test_points_come_back_to_the_frame() -> None:
    letterbox = Letterbox((640, 360), 320)
    points = np.array([[0, 0], [160, 90]], np.float32)
    assert letterbox.to_frame(points).tolist() == [[0, 0], [320, 180]]
