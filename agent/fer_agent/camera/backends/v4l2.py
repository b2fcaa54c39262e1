"""The source of USB and other Video4Linux cameras, read with OpenCV."""

from __future__ import annotations

import logging
import os
import time
from typing import NoReturn

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_agent.camera.backends.opencv import next_picture, open_capture
from fer_agent.camera.backends.planes import yuv_frame
from fer_agent.camera.backends.replay import make_frame
from fer_agent.camera.backends.v4l2_device import (
    Mode,
    V4l2Device,
    check_not_busy,
    find_again,
    query,
)
from fer_agent.errors import CameraError
from fer_agent.vision.records import Frame, Gap

logger = logging.getLogger(__name__)

_RAW = {"YUYV": cv2.COLOR_YUV2BGR_YUYV, "NV12": cv2.COLOR_YUV2BGR_NV12}
"""Formats with a luma plane and their conversions; OpenCV reads all others as BGR."""

_PREFERENCE = ("YUYV", "NV12", "MJPG")

_MAX_OFFERS = 8
"""Most sizes named in an error; some devices have hundreds of modes."""

_MAX_BAD = 10
"""Pictures in a row that do not decode before the camera is opened again."""


class V4l2Source:
    """A Video4Linux camera; a `FrameSource`.

    Args:
        device: node such as /dev/video0, a link in /dev/v4l/by-id, or a number.
        width: pixels, set and read back.
        height: pixels, set and read back.
        fps: frames a second, set and read back.
    """

    def __init__(self, device: str, *, width: int, height: int, fps: float) -> None:
        self._device = f"/dev/video{device}" if device.isdecimal() else device
        self._width = width
        self._height = height
        self._fps = fps
        self._fourcc = ""
        self._capture = cv2.VideoCapture()
        self._bad = 0
        self._node = self._device
        self._known: V4l2Device | None = None

    def open(self) -> None:
        """Open the device in the configured mode.

        Raises:
            CameraError: no such device, permission denied, in use, or without this mode.
        """
        info = find_again(self._device, self._known)
        if info.path != self._device:
            logger.info("the camera %s came back as %s", self._device, info.path)
        self._node = info.path
        self._fourcc = self._choose(info.modes)
        check_not_busy(self._node)
        # The real path, because OpenCV needs a name such as /dev/video0.
        self._capture = open_capture(os.path.realpath(self._node), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            check_not_busy(self._node)
            raise CameraError(
                f"the camera {self._device} does not start",
                remedy="reconnect it, on another USB port if it is one of several",
            )
        try:
            self._ask_and_read_back(info.modes)
        except CameraError:
            self.close()
            raise
        self._known, self._bad = info, 0

    def read(self) -> Frame | Gap | None:
        """Wait up to a second for the next picture; ten in a row that do not decode are a fault."""
        started_s = time.monotonic()
        image = next_picture(self._capture)
        captured_ns = time.monotonic_ns()
        if image is None:
            query(self._node)  # raises when the device is gone
            if time.monotonic() - started_s > 0.5:
                raise TimeoutError
            self._count_bad()
        frame = self._frame(image, captured_ns)
        if frame is None:
            self._count_bad()
        self._bad = 0
        return frame

    def close(self) -> None:
        """Release the device."""
        self._capture.release()

    def _choose(self, modes: tuple[Mode, ...]) -> str:
        """Choose a format with a luma plane if it is fast enough, else any other."""
        fitting = [mode for mode in modes if mode.takes(self._width, self._height)]
        fast = [mode for mode in fitting if not 0 < mode.fps < 0.9 * self._fps]
        for fourcc in (*_PREFERENCE, *(mode.fourcc for mode in fast)):
            if any(mode.fourcc == fourcc for mode in fast):
                return fourcc
        if modes:
            raise self._mismatch(modes)
        return ""  # the driver does not enumerate its modes; the result is read back

    def _ask_and_read_back(self, modes: tuple[Mode, ...]) -> None:
        capture = self._capture
        if self._fourcc:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._fourcc.ljust(4)))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._height)
        capture.set(cv2.CAP_PROP_FPS, self._fps)
        got = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
        size = (capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = capture.get(cv2.CAP_PROP_FPS)
        rate_differs = fps > 0 and abs(fps - self._fps) > 0.1 * self._fps
        if size != (self._width, self._height) or rate_differs:
            set_to = f"it was set to {size[0]:.0f}x{size[1]:.0f} at {fps:g} fps"
            raise self._mismatch(modes, set_to)
        self._fourcc = got.strip()
        capture.set(cv2.CAP_PROP_CONVERT_RGB, 0.0 if self._fourcc in _RAW else 1.0)

    def _mismatch(self, modes: tuple[Mode, ...], set_to: str = "") -> CameraError:
        wanted = self._width * self._height
        nearest = sorted(modes, key=lambda mode: abs(mode.width * mode.height - wanted))
        offers = "; ".join(
            list(dict.fromkeys(mode.size_and_rate for mode in nearest))[:_MAX_OFFERS]
        )
        return CameraError(
            f"the camera {self._device} cannot give {self._width}x{self._height} "
            f"at {self._fps:g} fps",
            remedy=f"set the camera's width, height and fps to what it offers: {offers or set_to}",
        )

    def _frame(self, image: NDArray[np.uint8], captured_ns: int) -> Frame | None:
        """Make the frame; return None for a picture of another size than configured."""
        width, height = self._width, self._height
        code = _RAW.get(self._fourcc)
        if code is None:
            return make_frame(image, captured_ns, 0) if image.shape == (height, width, 3) else None
        shape = (height, width, 2) if self._fourcc == "YUYV" else (height * 3 // 2, width)
        if image.size != int(np.prod(shape)):
            return None
        return yuv_frame(image.reshape(shape), code, captured_ns)

    def _count_bad(self) -> NoReturn:
        self._bad += 1
        if self._bad >= _MAX_BAD:
            raise CameraError(
                f"the camera {self._device} gives pictures that do not decode",
                remedy="reconnect it with a shorter cable or on another USB port",
            )
        raise TimeoutError
