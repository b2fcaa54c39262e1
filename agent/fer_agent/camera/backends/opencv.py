"""OpenCV's video readers, opened without their chatter on stderr."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)


def hush() -> None:
    """Silence OpenCV and FFmpeg for the process, and shorten their wait for a device.

    They print to stderr from C, where no logging configuration reaches; every failure they would
    name is reported by whoever called them.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    # Else a camera that stopped holds its reader for ten seconds; OpenCV looks at first capture.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    # The function moved between 4.10 and 4.14.
    home: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    home.setLogLevel(0)  # LOG_LEVEL_SILENT


def open_capture(source: str, backend: int, parameters: Sequence[int] = ()) -> cv2.VideoCapture:
    """Open a video file, stream or device quietly; ask the result's `isOpened()`.

    Args:
        source: path or address.
        backend: one of OpenCV's `CAP_*`.
        parameters: pairs of a `CAP_PROP_*` and its value.
    """
    hush()
    try:
        return cv2.VideoCapture(source, backend, list(parameters))
    except cv2.error as error:
        logger.debug("OpenCV refused to open a capture: %s", error)
        return cv2.VideoCapture()
