from __future__ import annotations

import numpy as np
import pytest

from fer_agent.detector.yunet_decode import OUTPUT_WIDTHS, STRIDES, Decoder, suppress

WIDTH, HEIGHT = 96, 64


def test_the_outputs_are_those_of_the_network_and_lie_contiguous() -> None:
    outputs = Decoder(WIDTH, HEIGHT).outputs
    assert {name: array.shape for name, array in outputs.items()} == {
        f"{key}_{stride}": (1, WIDTH // stride * (HEIGHT // stride), values)
        for stride in STRIDES
        for key, values in OUTPUT_WIDTHS.items()
    }
    assert all(array.flags.c_contiguous for array in outputs.values())
    for number, array in enumerate(outputs.values()):
        array[:] = number  # no output lies in another one's memory
    assert [np.unique(array).tolist() for array in outputs.values()] == [
        [number] for number in range(len(outputs))
    ]


def test_nothing_over_the_threshold_is_none() -> None:
    decoder = Decoder(WIDTH, HEIGHT)
    decoder.outputs["cls_8"][:] = 1.0
    decoder.outputs["obj_8"][:] = 0.35
    decoder.outputs["obj_32"][0, 3] = decoder.outputs["cls_32"][0, 3] = 0.25
    assert decoder.decode(0.6, 0.3) is None
    assert decoder.trace() == 0.25  # of the coarsest level only


@pytest.mark.parametrize("stride", STRIDES)
def test_a_cell_is_decoded_around_its_corner(stride: int) -> None:
    decoder = Decoder(WIDTH, HEIGHT)
    row, column = 1, 2
    cell = row * (WIDTH // stride) + column
    decoder.outputs[f"cls_{stride}"][0, cell] = 0.81
    decoder.outputs[f"obj_{stride}"][0, cell] = 1.0
    decoder.outputs[f"bbox_{stride}"][0, cell] = [0.5, -0.25, np.log(2), np.log(3)]
    decoder.outputs[f"kps_{stride}"][0, cell] = np.arange(10) / 10
    found = decoder.decode(0.6, 0.3)
    assert found is not None
    assert found.score.tolist() == pytest.approx([0.9])
    assert (found.xyxy[0] / stride).tolist() == pytest.approx([1.5, -0.75, 3.5, 2.25])
    assert (found.landmarks[0, 4] / stride).tolist() == pytest.approx([2.8, 1.9])
    assert found.xyxy.dtype == found.score.dtype == found.landmarks.dtype == np.float32


def test_faces_of_all_levels_come_best_first_with_their_own_landmarks() -> None:
    decoder = Decoder(WIDTH, HEIGHT)
    for stride, score in zip(STRIDES, (0.8, 0.9, 0.7), strict=True):
        decoder.outputs[f"cls_{stride}"][0, -1] = decoder.outputs[f"obj_{stride}"][0, -1] = score
        decoder.outputs[f"bbox_{stride}"][0, -1, 2:] = -3.0  # small: nothing overlaps
        decoder.outputs[f"kps_{stride}"][0, -1] = stride
    found = decoder.decode(0.6, 0.3)
    assert found is not None
    assert found.score.tolist() == pytest.approx([0.9, 0.8, 0.7])
    first_x = [WIDTH - stride + stride * stride for stride in (16, 8, 32)]
    assert found.landmarks[:, 0, 0].tolist() == first_x


def test_one_face_in_several_cells_is_found_once() -> None:
    decoder = Decoder(WIDTH, HEIGHT)
    for cell, score in enumerate((0.7, 0.9, 0.8)):
        decoder.outputs["cls_8"][0, cell] = decoder.outputs["obj_8"][0, cell] = score
        decoder.outputs["bbox_8"][0, cell, 0] = -cell  # all around the first cell's corner
        decoder.outputs["bbox_8"][0, cell, 2:] = 1.0
    found = decoder.decode(0.6, 0.3)
    assert found is not None
    assert found.score.tolist() == pytest.approx([0.9])


def test_of_overlapping_boxes_the_best_stays() -> None:
    xyxy = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [5, 0, 15, 10]], np.float32)
    score = np.array([0.7, 0.9, 0.8, 0.65], np.float32)
    assert suppress(xyxy, score, 0.3) == [1, 2]
    assert suppress(xyxy, score, 0.4) == [1, 2, 3]
    assert suppress(xyxy, score, 1.0) == [1, 2, 0, 3]
    assert suppress(xyxy[:1], score[:1], 0.3) == [0]


@pytest.mark.parametrize("step", [(50, 0), (0, 50)])
def test_faces_in_a_row_and_in_a_column_all_stay(step: tuple[int, int]) -> None:
    corners = np.array([[100, 100]]) + np.arange(3)[:, np.newaxis] * step
    xyxy = np.concatenate((corners, corners + 40), axis=1).astype(np.float32)
    assert suppress(xyxy, np.array([0.9, 0.8, 0.7], np.float32), 0.3) == [0, 1, 2]


def test_boxes_without_area_do_not_divide_by_zero() -> None:
    xyxy = np.array([[5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert suppress(xyxy, np.array([0.9, 0.8], np.float32), 0.3) == [0]
