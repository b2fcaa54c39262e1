"""Frames from planar and packed YUV pictures, without a conversion to colour and back."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_agent.vision.records import Bgr, Frame

_FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
"""Table from video levels to full range, ITU-R BT.601, as in OpenCV's conversions to colour."""


def yuv_frame(raw: NDArray[np.uint8], code: int, captured_ns: int) -> Frame:
    """Make a frame of a picture with video levels; `raw` is kept for its colour.

    Args:
        raw: uint8, packed (H, W, 2) with Y first, or planar (H * 3 / 2, W).
        code: OpenCV's conversion of its format to BGR.
        captured_ns: monotonic time.
    """
    luma = raw[:, :, 0] if raw.ndim == 3 else raw[: raw.shape[0] * 2 // 3]
    return Frame(
        np.asarray(cv2.LUT(luma, _FULL_RANGE), np.uint8),
        captured_ns,
        0,
        lambda: np.asarray(cv2.cvtColor(raw, code), np.uint8),
    )


def full_range_frame(planes: NDArray[np.uint8], width: int, captured_ns: int) -> Frame:
    """Make a frame of a full-range I420 picture, as from JPEG and Pi cameras, without a copy.

    Args:
        planes: uint8 (H * 3 / 2, stride), contiguous; rows may be padded.
        width: pixels of a row that are picture.
        captured_ns: monotonic time.
    """
    height = planes.shape[0] * 2 // 3
    luma = planes[:height, :width]

    def to_bgr(size: tuple[int, int] = (width, height)) -> Bgr:
        # Each row of the buffer holds two rows of a chroma plane. Half the size, the usual input of
        # detectors, is chroma's own: 0.09 ms instead of 0.7 for 640x480 (x86-64).
        chroma = planes[height:].reshape(2, height // 2, -1)[:, :, : width // 2]
        y, u, v = (cv2.resize(plane, size) for plane in (luma, *chroma))
        return np.asarray(cv2.cvtColor(cv2.merge([y, v, u]), cv2.COLOR_YCrCb2BGR), np.uint8)

    return Frame(luma, captured_ns, 0, to_bgr, to_bgr)
