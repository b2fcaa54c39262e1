"""The scaling of frames in proportion, with padding to a network's input."""

from __future__ import annotations

import cv2
import numpy as np

from fer_agent.vision.records import Float32Array, Frame

_MULTIPLE = 32
"""Divisor of width and height for a network of strides 8, 16 and 32."""


class Letterbox:
    """Reused buffers that turn frames of one size into network input.

    The picture is in the upper left corner, black is below it or to its right. Shrinking is
    bilinear, because averaging takes as long as the network itself from 1280x720 upwards.

    Attributes:
        input_size: width and height of the network's input in pixels.
        tensor: the network's input, float32 (1, 3, H, W), BGR in 0 to 255; always the same array.

    Args:
        frame_size: width and height of the frames in pixels.
        long_side: pixels of the longer side in the input; a smaller frame is enlarged.
    """

    def __init__(self, frame_size: tuple[int, int], long_side: int) -> None:
        self._size = _scaled(frame_size, long_side)
        width, height = self._size
        self.input_size = _padded(width), _padded(height)
        self._scale = np.array([width / frame_size[0], height / frame_size[1]], np.float32)
        self._bgr = np.empty((height, width, 3), np.uint8)
        self._planes = np.empty((3, height, width), np.uint8)
        self._channels = list(self._planes)
        self.tensor = np.zeros((1, 3, *self.input_size[::-1]), np.float32)
        self._picture = self.tensor[0, :, :height, :width]

    def fill(self, frame: Frame) -> None:
        """Write the frame into `tensor`.

        Args:
            frame: of the letterbox's frame size; a gray one fills all three planes.
        """
        if frame.to_bgr is None:
            gray = self._channels[0]
            cv2.resize(frame.luma, self._size, dst=gray, interpolation=cv2.INTER_LINEAR)
            np.copyto(self._picture, gray)
            return
        if frame.to_scaled_bgr is not None:
            self._bgr = frame.to_scaled_bgr(self._size)
        else:
            cv2.resize(frame.bgr(), self._size, dst=self._bgr, interpolation=cv2.INTER_LINEAR)
        # Splitting bytes and converting all planes at once takes 0.22 ms of 640x480; plane by plane
        # 0.33, splitting floats 0.38, blobFromImage 1.7 (x86-64, cold caches).
        cv2.split(self._bgr, self._channels)
        np.copyto(self._picture, self._planes)

    def to_frame(self, points: Float32Array) -> Float32Array:
        """Return points of the input, float32 (..., 2) as x and y, in frame pixels."""
        return points / self._scale


def _scaled(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    scale = long_side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _padded(length: int) -> int:
    return -(-length // _MULTIPLE) * _MULTIPLE
