"""The source of videos, GIFs, single images and folders of images."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from fer_agent.camera.backends.clips import Clip, ClipPicture, play
from fer_agent.vision.records import Bgr, Frame, Gap

_NAP_S = 0.2
"""Longest sleep, after which the capture thread checks whether the camera was closed."""


class ReplaySource:
    """A media file played as a camera; a `FrameSource`.

    Args:
        path: video, GIF, image or folder of images.
        fps: pace of a folder, and of a video without a frame rate.
        pace: `own` gives each picture when it is due; `fast` gives it at once, and `captured_ns`
            is then the opening time plus the picture's time in the clip, so that all results that
            depend on time are those of the clip's own pace, on any machine.
        loop: start again at the end. The seam is a `Gap`, except for a single image.
    """

    def __init__(self, path: Path, *, fps: float, pace: Literal["own", "fast"], loop: bool) -> None:
        self._path = path
        self._fps = fps
        self._pace = pace
        self._loop = loop
        self._clip: Clip | None = None
        self._next: ClipPicture | None = None
        self._last: ClipPicture | None = None
        self._number = 0
        self._base_ns = 0
        self._captured_ns = 0

    def open(self) -> None:
        """Start at the clip's beginning and decode its first picture."""
        self._start(time.monotonic_ns())

    def read(self) -> Frame | Gap | None:
        """Return the next picture when it is due, None after the last one."""
        picture = self._next
        if picture is None:
            return self._start_again()
        due_ns = self._base_ns + round(picture.at_s * 1e9)
        if self._pace == "own":
            _wait_until(due_ns)
        self._last, self._next = picture, next(self._clip, None) if self._clip else None
        self._captured_ns = due_ns if self._pace == "fast" else time.monotonic_ns()
        self._number += 1
        return make_frame(picture.bgr, self._captured_ns, self._number)

    def close(self) -> None:
        """Release the file."""
        if self._clip is not None:
            self._clip.close()
        self._clip = self._next = None

    def _start(self, base_ns: int) -> None:
        self._base_ns = base_ns
        self._clip = play(self._path, self._fps)
        self._next = next(self._clip, None)

    def _start_again(self) -> Frame | Gap | None:
        """Begin the next round at the end of the last picture; return None when not looping."""
        if not self._loop or self._last is None:
            return None
        last = self._last
        self._start(self._base_ns + round((last.at_s + last.lasts_s) * 1e9))
        if last.at_s == 0.0:
            return self.read()
        return Gap(self._captured_ns, "the clip starts again")


def make_frame(bgr: Bgr, captured_ns: int, number: int) -> Frame:
    """Make a frame of a colour picture, uint8 (H, W, 3); its luma is computed here, once."""
    luma = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), np.uint8)
    return Frame(luma, captured_ns, number, to_bgr=lambda: bgr)


def _wait_until(due_ns: int) -> None:
    wait_s = (due_ns - time.monotonic_ns()) / 1e9
    if wait_s > 0:
        time.sleep(min(wait_s, _NAP_S))
    if wait_s > _NAP_S:
        raise TimeoutError
