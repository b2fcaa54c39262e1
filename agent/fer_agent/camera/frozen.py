"""The check for a frozen picture."""

from __future__ import annotations

import time
import zlib

from fer_agent.errors import CameraError
from fer_agent.vision.records import Frame

_SAMPLES = 64
"""Sampled rows and columns: 4,096 pixels, of which sensor noise always changes some."""


class FrozenPicture:
    """The hash of a sparse sample of the picture, and the time of its last change.

    Args:
        limit_s: a picture that is the same for longer is a fault, in seconds; 0 turns this off.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._digest: int | None = None
        self._since_s = 0.0
        self._is_frozen = False

    def withholds(self, frame: Frame) -> bool:
        """Tell whether this frame only repeats the one that was found frozen.

        A camera that was opened again and still shows the old picture thus stays offline.

        Raises:
            CameraError: the picture has been the same for the limit.
        """
        if self._limit_s <= 0:
            return False
        height, width = frame.luma.shape
        rows, columns = max(1, height // _SAMPLES), max(1, width // _SAMPLES)
        sample = frame.luma[rows // 2 :: rows, columns // 2 :: columns]
        digest = zlib.crc32(sample.tobytes())
        now_s = time.monotonic()
        if digest != self._digest:
            self._digest, self._since_s, self._is_frozen = digest, now_s, False
        elif now_s - self._since_s > self._limit_s:
            self._since_s, self._is_frozen = now_s, True
            raise CameraError(
                f"the picture has not changed for {self._limit_s:g} s",
                remedy="reconnect the camera; set `frozen_s = 0` for a source that stands still",
            )
        return self._is_frozen
