"""Frames from planar and packed YUV pictures, without a conversion to colour and back."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_agent.vision.records import Bgr, Frame, Luma

_FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
"""Table from video levels to full range, ITU-R BT.601, as in OpenCV's conversions to colour."""


def yuyv_frame(raw: NDArray[np.uint8], captured_ns: int) -> Frame:
    """Make a frame of a YUYV picture, uint8 (H, W, 2), video levels; `raw` is kept for colour."""
    return _video_frame(raw[:, :, 0], raw, captured_ns, cv2.COLOR_YUV2BGR_YUYV)


def nv12_frame(raw: NDArray[np.uint8], captured_ns: int) -> Frame:
    """Make a frame of an NV12 picture, uint8 (H * 3 / 2, W), video levels; `raw` is kept."""
    return _video_frame(raw[: len(raw) * 2 // 3], raw, captured_ns, cv2.COLOR_YUV2BGR_NV12)


def i420_frame(raw: NDArray[np.uint8], captured_ns: int) -> Frame:
    """Make a frame of an I420 picture, uint8 (H * 3 / 2, W), video levels; `raw` is kept."""
    return _video_frame(raw[: len(raw) * 2 // 3], raw, captured_ns, cv2.COLOR_YUV2BGR_I420)


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


def _video_frame(
    plane: NDArray[np.uint8], raw: NDArray[np.uint8], captured_ns: int, code: int
) -> Frame:
    """Make a frame of video levels: `plane` is the luma in `raw`, which `code` turns into BGR."""
    luma: Luma = np.asarray(cv2.LUT(plane, _FULL_RANGE), np.uint8)
    return Frame(luma, captured_ns, 0, lambda: np.asarray(cv2.cvtColor(raw, code), np.uint8))
