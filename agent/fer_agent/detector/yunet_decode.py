"""The decoder of YuNet's raw outputs.

Source: YuNet (Wu et al., 2023), doi:10.1007/s11633-023-1423-y; the formulas are those of OpenCV's
`FaceDetectorYN`, which the tests compare with.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np

from fer_agent.vision.records import Float32Array

STRIDES = (8, 16, 32)
"""Side of a cell of each of the three output levels, in input pixels."""

OUTPUT_WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""Values per cell of each output; the names in the file are `<key>_<stride>`."""


class Detections(NamedTuple):
    """Faces in input pixels, best score first.

    Attributes:
        xyxy: float32 (N, 4).
        score: float32 (N,) in [0, 1].
        landmarks: float32 (N, 5, 2) in YuNet's order: right eye, left eye, nose, mouth corners.
    """

    xyxy: Float32Array
    score: Float32Array
    landmarks: Float32Array


class Decoder:
    """The outputs for inputs of one size, and their decoding.

    The three levels follow one another in the same arrays, so that everything below is done once
    and not level by level: a frame's Python runs with cold caches after the network, where the
    number of calls counts and not their size.

    Attributes:
        outputs: arrays for the network's outputs, float32 (1, cells, n) by the names above.

    Args:
        width: the input's width in pixels, a multiple of 32.
        height: its height, likewise.
    """

    def __init__(self, width: int, height: int) -> None:
        cells = [(height // stride) * (width // stride) for stride in STRIDES]
        ends = np.cumsum(cells)
        joined = {
            key: np.zeros((1, int(ends[-1]), values), np.float32)
            for key, values in OUTPUT_WIDTHS.items()
        }
        self.outputs: dict[str, Float32Array] = {
            f"{key}_{stride}": array[:, end - count : end]
            for key, array in joined.items()
            for stride, count, end in zip(STRIDES, cells, ends, strict=True)
        }
        self._class, self._object, self._box, self._points = (
            array[0, :, 0] if array.shape[2] == 1 else array[0] for array in joined.values()
        )
        self._grid = np.concatenate([_grid(stride, width, height) for stride in STRIDES])
        self._product = np.zeros(len(self._grid), np.float32)
        self._coarsest = self._product[int(ends[-2]) :]

    def decode(self, min_score: float, max_iou: float) -> Detections | None:
        """Decode the outputs that the network wrote.

        Args:
            min_score: least score, the geometric mean of class and objectness.
            max_iou: a box that overlaps a better one more than this is dropped.

        Returns:
            The faces, or None where no cell is over the threshold.
        """
        product = np.multiply(self._class, self._object, out=self._product)
        (cells,) = (product >= min_score * min_score).nonzero()
        if not cells.size:
            return None
        grid = self._grid.take(cells, axis=0)  # (N, 3)
        box = self._box.take(cells, axis=0)  # centre offset and log size, in strides
        corner, stride = grid[:, :2], grid[:, 2:]
        centre = corner + box[:, :2] * stride
        half = np.exp(box[:, 2:]) * (stride * np.float32(0.5))
        xyxy = np.concatenate((centre - half, centre + half), axis=1)
        score = np.sqrt(product.take(cells))
        kept = suppress(xyxy, score, max_iou)
        points = self._points.take(cells.take(kept), axis=0) * stride.take(kept, axis=0)
        return Detections(
            xyxy=xyxy.take(kept, axis=0),
            score=score.take(kept),
            landmarks=points.reshape(-1, 5, 2) + corner.take(kept, axis=0)[:, np.newaxis],
        )

    def trace(self) -> float:
        """Return the best score on the coarsest level of the outputs decoded last."""
        return math.sqrt(self._coarsest.max())


def _grid(stride: int, width: int, height: int) -> Float32Array:
    """Return one level's cells, float32 (cells, 3): the upper left corner and the stride."""
    rows, columns = np.mgrid[0:height:stride, 0:width:stride]
    grid = np.stack((columns, rows, np.full_like(rows, stride)), axis=2)
    return grid.reshape(-1, 3).astype(np.float32)


def suppress(xyxy: Float32Array, score: Float32Array, max_iou: float) -> list[int]:
    """Return the indices of the boxes to keep, best score first (greedy NMS).

    Args:
        xyxy: float32 (N, 4), N at least 1.
        score: float32 (N,), above 0.
        max_iou: a box that overlaps a better one more than this is dropped.
    """
    if len(score) == 1:
        return [0]
    boxes = xyxy.tolist()
    # note: from lists OpenCV converts twice as fast as from arrays; 20 boxes take 19 us, and 450 us
    # with numpy's own calls (cold caches).
    for box in boxes:
        box[2] -= box[0]
        box[3] -= box[1]
    return [int(index) for index in cv2.dnn.NMSBoxes(boxes, score.tolist(), 0.0, max_iou)]
