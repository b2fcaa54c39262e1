"""OpenCV's video readers, opened without their messages on stderr."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from fer_agent.vision.records import Bgr

logger = logging.getLogger(__name__)


def silence_logging() -> None:
    """Silence OpenCV and FFmpeg for the process, and shorten their wait for a device.

    They print to stderr from C, where no logging configuration reaches; their callers report every
    failure.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET
    # Else a camera that stopped blocks its reader for ten seconds; read at OpenCV's first capture.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "1")
    # The function moved between 4.10 and 4.14.
    home: Any = cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
    home.setLogLevel(0)  # LOG_LEVEL_SILENT


def open_capture(source: str, backend: int, parameters: Sequence[int] = ()) -> cv2.VideoCapture:
    """Open a video file, stream or device; the result's `isOpened()` tells whether it worked.

    Args:
        source: path or address.
        backend: one of OpenCV's `CAP_*`.
        parameters: pairs of a `CAP_PROP_*` and its value.
    """
    silence_logging()
    try:
        return cv2.VideoCapture(source, backend, list(parameters))
    except cv2.error as error:
        logger.debug("OpenCV refused to open a capture: %s", error)
        return cv2.VideoCapture()


def next_picture(capture: cv2.VideoCapture) -> Bgr | None:
    """Return the next picture, uint8; None when there is none, or it does not decode."""
    try:
        _, picture = capture.read()
    except cv2.error as error:
        logger.debug("OpenCV stopped decoding: %s", error)
        return None
    return None if picture is None else np.asarray(picture, np.uint8)
