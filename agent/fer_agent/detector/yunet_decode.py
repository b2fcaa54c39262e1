"""YuNet's raw outputs to boxes: only cells over the threshold are decoded, then NMS.

Source: YuNet (Wu et al., 2023), doi:10.1007/s11633-023-1423-y; the formulas are those of OpenCV's
`FaceDetectorYN`, which the tests compare with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fer_agent.records import Float32Array, Int64Array

STRIDES = (8, 16, 32)
"""Input pixels a cell of each of the three output levels stands for."""

OUTPUT_WIDTHS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""Values per cell of each output; the names in the file are `<key>_<stride>`."""


class Candidates(NamedTuple):
    """Decoded cells, in input pixels, unordered.

    Attributes:
        xyxy: float32 (N, 4).
        score: float32 (N,) in [0, 1].
        landmarks: float32 (N, 5, 2) in YuNet's order: right eye, left eye, nose, mouth corners.
    """

    xyxy: Float32Array
    score: Float32Array
    landmarks: Float32Array


class Decoder:
    """Decodes the outputs for inputs of one size.

    Args:
        width: the input's width in pixels, a multiple of 32.
        height: its height, likewise.
    """

    def __init__(self, width: int, height: int) -> None:
        self._levels = [_Level(stride, width, height) for stride in STRIDES]

    def decode(
        self, outputs: Mapping[str, Float32Array], min_score: float
    ) -> tuple[Candidates | None, float]:
        """Decode the cells whose score is over the threshold.

        Args:
            outputs: float32 (1, cells, n) by the names above, rows of cells first.
            min_score: least score, the geometric mean of class and objectness.

        Returns:
            The decoded cells, or None where there is none, and the best score on the coarsest
            level.
        """
        found = []
        for level in self._levels:
            product = outputs[level.cls][0, :, 0] * outputs[level.obj][0, :, 0]
            (cells,) = (product >= min_score * min_score).nonzero()
            if cells.size:
                arrays = (product, level.corner, outputs[level.bbox][0], outputs[level.kps][0])
                found.append([array.take(cells, axis=0) for array in arrays])
        trace = math.sqrt(product.max())
        if not found:
            return None, trace
        joined = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
        return _decode(*joined), trace


class _Level:
    """One output level: its names in the file, and its cells' upper left corners and stride."""

    def __init__(self, stride: int, width: int, height: int) -> None:
        self.cls, self.obj, self.bbox, self.kps = (f"{key}_{stride}" for key in OUTPUT_WIDTHS)
        rows, columns = np.mgrid[0:height:stride, 0:width:stride]
        corner = np.stack((columns, rows, np.full_like(rows, stride)), axis=2)
        self.corner = corner.reshape(-1, 3).astype(np.float32)


def _decode(
    product: Float32Array, corner: Float32Array, box: Float32Array, points: Float32Array
) -> Candidates:
    corner, stride = corner[:, :2], corner[:, 2:]
    centre = corner + box[:, :2] * stride  # box: centre offset and log size, in strides
    half = np.exp(box[:, 2:]) * (stride * np.float32(0.5))
    return Candidates(
        xyxy=np.concatenate((centre - half, centre + half), axis=1),
        score=np.sqrt(product),
        landmarks=(points * stride).reshape(-1, 5, 2) + corner[:, np.newaxis],
    )


def suppress(xyxy: Float32Array, score: Float32Array, max_iou: float) -> Int64Array:
    """Return the indices of the boxes to keep, best score first (greedy NMS).

    Args:
        xyxy: float32 (N, 4).
        score: float32 (N,).
        max_iou: a box that overlaps a better one more than this goes.
    """
    low, high = xyxy[:, :2], xyxy[:, 2:]
    area = (high[:, 0] - low[:, 0]) * (high[:, 1] - low[:, 1])
    order = np.argsort(-score, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        size = np.minimum(high[best], high.take(order, axis=0))
        size -= np.maximum(low[best], low.take(order, axis=0))
        np.maximum(size, 0.0, out=size)
        shared = size[:, 0] * size[:, 1]
        order = order[shared <= max_iou * (area[best] + area[order] - shared)]
    return np.array(kept, np.int64)
