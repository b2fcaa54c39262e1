from __future__ import annotations

import numpy as np
import pytest

from fer_agent.detector.yunet_decode import OUTPUT_WIDTHS, STRIDES, Decoder, suppress

WIDTH, HEIGHT = 96, 64


def blank_outputs() -> dict[str, np.ndarray]:
    return {
        f"{key}_{stride}": np.zeros((1, WIDTH // stride * (HEIGHT // stride), values), np.float32)
        for stride in STRIDES
        for key, values in OUTPUT_WIDTHS.items()
    }


def test_nothing_over_the_threshold_is_none() -> None:
    outputs = blank_outputs()
    outputs["cls_8"][:] = 1.0
    outputs["obj_8"][:] = 0.35
    outputs["obj_32"][0, 3] = outputs["cls_32"][0, 3] = 0.25
    found, trace = Decoder(WIDTH, HEIGHT).decode(outputs, 0.6)
    assert found is None
    assert trace == 0.25  # of the coarsest level only


@pytest.mark.parametrize("stride", STRIDES)
def test_a_cell_is_decoded_around_its_corner(stride: int) -> None:
    outputs = blank_outputs()
    row, column = 1, 2
    cell = row * (WIDTH // stride) + column
    outputs[f"cls_{stride}"][0, cell] = 0.81
    outputs[f"obj_{stride}"][0, cell] = 1.0
    outputs[f"bbox_{stride}"][0, cell] = [0.5, -0.25, np.log(2), np.log(3)]
    outputs[f"kps_{stride}"][0, cell] = np.arange(10) / 10
    found, _ = Decoder(WIDTH, HEIGHT).decode(outputs, 0.6)
    assert found is not None
    assert found.score.tolist() == pytest.approx([0.9])
    assert (found.xyxy[0] / stride).tolist() == pytest.approx([1.5, -0.75, 3.5, 2.25])
    assert (found.landmarks[0, 4] / stride).tolist() == pytest.approx([2.8, 1.9])
    assert found.xyxy.dtype == found.score.dtype == found.landmarks.dtype == np.float32


def test_levels_are_joined() -> None:
    outputs = blank_outputs()
    for stride in STRIDES:
        outputs[f"cls_{stride}"][0, 0] = outputs[f"obj_{stride}"][0, 0] = 0.9
    found, _ = Decoder(WIDTH, HEIGHT).decode(outputs, 0.6)
    assert found is not None
    assert found.xyxy.shape == (3, 4)
    assert found.landmarks.shape == (3, 5, 2)


def test_of_overlapping_boxes_the_best_stays() -> None:
    xyxy = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [5, 0, 15, 10]], np.float32)
    score = np.array([0.7, 0.9, 0.8, 0.65], np.float32)
    assert suppress(xyxy, score, 0.3).tolist() == [1, 2]
    assert suppress(xyxy, score, 0.4).tolist() == [1, 2, 3]
    assert suppress(xyxy, score, 1.0).tolist() == [1, 2, 0, 3]


def test_boxes_without_area_do_not_divide_by_zero() -> None:
    xyxy = np.array([[5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert suppress(xyxy, np.array([0.9, 0.8], np.float32), 0.3).tolist() == [0, 1]
