"""Gray face crops for the classifier, framed as its training pictures are."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_agent.vision.records import Float32Array, Luma

CROP_MARGIN = 1.05
"""Side of the square crop in units of the box's size, the geometric mean of its two sides.

Measured, so that a live crop is framed as FER2013 frames its faces: docs/crop.md.
"""

_LARGEST_SIDE = 4
"""A crop is at most this many times as large as the frame's longer side."""


def crop_faces(
    luma: Luma,
    xyxy: Float32Array,
    size: tuple[int, int],
    *,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Cut the squares around the boxes' centres out of a picture and scale them to one size.

    Outside the picture the edge pixels are repeated. Shrinking averages, enlarging is linear.

    Args:
        luma: uint8 (H, W), in full size; not modified.
        xyxy: float32 (N, 4), pixels of that picture, in YuNet's convention (forehead to chin);
            boxes may be partly or wholly outside the picture.
        size: height and width of a crop in pixels.
        out: array for the crops, uint8 (N, 1, h, w); by default a new one.

    Returns:
        uint8 (N, 1, h, w); N may be 0.
    """
    crops = np.empty((len(xyxy), 1, *size), np.uint8) if out is None else out
    longest = _LARGEST_SIDE * max(luma.shape)
    # A few faces are faster one by one in plain numbers than together in arrays.
    for crop, box in zip(crops, xyxy.tolist(), strict=True):
        left, top, side = _square(box, longest)
        _scale(_cut(luma, left, top, side), crop[0])
    return crops


def _square(box: list[float], longest: int) -> tuple[int, int, int]:
    """Return left, top and side of a box's crop in whole pixels."""
    left, top, right, bottom = box
    area = max(right - left, 0.0) * max(bottom - top, 0.0)
    side = min(max(CROP_MARGIN * math.sqrt(area), 1.0), longest)
    return round((left + right - side) / 2), round((top + bottom - side) / 2), round(side)


def _cut(luma: Luma, left: int, top: int, side: int) -> Luma:
    height, width = luma.shape
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return luma[top : top + side, left : left + side]
    rows = np.arange(top, top + side).clip(0, height - 1)
    columns = np.arange(left, left + side).clip(0, width - 1)
    patch: Luma = luma[rows[:, np.newaxis], columns]
    return patch


def _scale(patch: Luma, crop: NDArray[np.uint8]) -> None:
    """Scale a square into the crop: linear by less than two, then the mean of whole blocks.

    On a portrait that is within one gray level of `INTER_AREA` in one step, at a fifth to two
    thirds of its time.
    """
    height, width = crop.shape
    doublings = max(0, (len(patch) // min(height, width)).bit_length() - 1)
    if doublings:
        blocks = (width << doublings, height << doublings)
        patch = np.asarray(cv2.resize(patch, blocks, interpolation=cv2.INTER_LINEAR), np.uint8)
    interpolation = cv2.INTER_AREA if doublings else cv2.INTER_LINEAR
    cv2.resize(patch, (width, height), dst=crop, interpolation=interpolation)
