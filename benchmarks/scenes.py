"""Pictures for the measurements, and cameras that play them from memory."""

from __future__ import annotations

import tarfile
import time
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_agent.camera.backends.clips import play
from fer_agent.camera.backends.planes import yuv_frame
from fer_agent.camera.backends.replay import make_frame
from fer_agent.vision.records import CameraStats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from fer_agent.vision.records import Frame

    Bgr = NDArray[np.uint8]

FRAME_SIZE = (640, 480)
FPS = 30.0
TWO_PEOPLE = "head-pose-face-detection-female-and-male.gif"

_NOISE = 2.0
"""Standard deviation of a sensor's noise, in gray levels; a dim room has more."""


def two_faces(shared: Path) -> list[Bgr]:
    """Return a clip of two people, and their way back so that nobody jumps."""
    clip = (picture.bgr for picture in play(shared / "media" / TWO_PEOPLE, FPS))
    facing = [np.asarray(cv2.resize(bgr, FRAME_SIZE), np.uint8) for bgr in islice(clip, 20)]
    return [*facing, *facing[::-1]]


def no_face(shared: Path, count: int = 40) -> list[Bgr]:
    """Return photos without a face."""
    photos: list[Bgr] = []
    with tarfile.open(shared / "data" / "faces.tar.xz", "r|xz") as archive:
        for member in archive:
            if "/negatives/" in member.name and (file := archive.extractfile(member)):
                content = np.frombuffer(file.read(), np.uint8)
                photo = cv2.imdecode(content, cv2.IMREAD_COLOR)
                photos.append(np.asarray(cv2.resize(photo, FRAME_SIZE), np.uint8))
                if len(photos) == count:
                    break
    return photos


def noisy(picture: Bgr, count: int = 30) -> list[Bgr]:
    """Return one picture again and again, as a sensor that looks at a still scene gives it."""
    random = np.random.default_rng(0)
    return [
        np.clip(picture + random.normal(0, _NOISE, picture.shape).round(), 0, 255).astype(np.uint8)
        for _ in range(count)
    ]


class MemoryCamera:
    """Plays pictures from memory, as fast as they are taken; satisfies `ports.Camera`.

    Args:
        pictures: uint8 (H, W, 3), played in turn.
        count: how many frames there are.
        frame_done: called in the pipeline's thread, with the thread's nanoseconds that the
            pipeline spent on the frame.
    """

    def __init__(self, pictures: list[Bgr], count: int, frame_done: Callable[[int], None]) -> None:
        self._pictures = pictures
        self._count = count
        self._frame_done = frame_done

    def frames(self) -> Iterator[Frame]:
        """Yield the pictures with the times of a camera of 30 a second."""
        for number in range(self._count):
            # Written just before it is handed over, as a decoded or captured picture is.
            picture = self._pictures[number % len(self._pictures)].copy()
            frame = make_frame(picture, round((number + 1) / FPS * 1e9), number)
            started_ns = time.thread_time_ns()
            yield frame
            self._frame_done(time.thread_time_ns() - started_ns)

    def stats(self) -> CameraStats:
        """Count nothing."""
        return CameraStats(captured=0, dropped=0, reopened=0)

    def close(self) -> None:
        """Hold nothing."""


class UsbSource:
    """A USB camera of 30 frames a second that gives YUYV, played as fast as it is taken.

    Args:
        pictures: uint8 (H, W, 3), played in turn.
        seconds: what it plays, by the clock of the camera.
        on_second: called with the number of each second that begins.
    """

    def __init__(self, pictures: list[Bgr], seconds: int, on_second: Callable[[int], None]) -> None:
        self._raw = [
            np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_YUY2), np.uint8)
            for picture in pictures
        ]
        self._left = seconds * round(FPS)
        self._number = 0
        self._on_second = on_second

    def open(self) -> None:
        """Hold nothing."""

    def read(self) -> Frame | None:
        """Give the next picture; its bytes are copied, as from a driver's buffer."""
        second, rest = divmod(self._number, round(FPS))
        if not rest:
            self._on_second(second)
        if self._number == self._left:
            return None
        self._number += 1
        raw = self._raw[self._number % len(self._raw)].copy()
        return yuv_frame(raw, cv2.COLOR_YUV2BGR_YUYV, round(self._number / FPS * 1e9))

    def close(self) -> None:
        """Hold nothing."""
