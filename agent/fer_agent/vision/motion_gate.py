"""A detector that searches every frame while something moves, and rests while nothing does."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from fer_agent.vision.ports import FaceDetector
from fer_agent.vision.records import Faces, Frame, Luma

_MOST_CELLS: Final = 80
"""Most cells along the picture's longer side; at least half of that. The smallest face that is
found covers two or three."""

_MOTION_THRESHOLD: Final = 6.0
"""Gray levels by which a cell's mean has to change to be motion.

A face's edge of 100 levels does that when it moves by half a pixel of 640. The noise of a sensor
averages out: even with a standard deviation of 8 levels, the largest change of a still picture's
4,800 cells stays below.
"""

_SAME_PLACE: Final = 0.1
"""A box whose edges moved less than this share of its size counts as still; YuNet's own jitter on a
still head is 0.01 to 0.04."""

_MIN_DETECTIONS: Final = 3
"""Least number of searches with the same result before the first rest."""


class MotionGatedDetector:
    """A `FaceDetector` that searches a frame only after motion or a time limit.

    It rests once the same faces, or none, were found at the same places for a while. A frame that
    then shows no motion against the reference picture, the last one searched, gets that one's
    faces. So a moving face is searched for in every frame, and a new one is found after `rest_s` at
    the latest, even without motion. The tracks are the same as without the gate.

    Args:
        detector: the detector that searches.
        rest_s: longest time from one search to the next, in seconds; a frame is searched where the
            next one would come too late.
        steady_s: seconds for which the result has to stay the same before a rest; as long as a
            track may be missed, so that no track depends on a rest.
        min_detections: searches with the same result before a rest, at least 3.
    """

    def __init__(
        self, detector: FaceDetector, *, rest_s: float, steady_s: float, min_detections: int
    ) -> None:
        self._detector = detector
        self._rest_ns = round(rest_s * 1e9)
        self._steady_ns = round(steady_s * 1e9)
        self._min_detections = max(min_detections, _MIN_DETECTIONS)
        self._frame_ns = 0
        self._searched_ns = 0
        self._searched: Faces | None = None
        self._reference: Luma | None = None
        self._steady: Faces | None = None
        self._steady_since_ns = 0
        self._detections = 0

    def detect(self, frame: Frame) -> Faces:
        """Find the faces in one frame, or repeat those of the last one searched."""
        step_ns, self._frame_ns = frame.captured_ns - self._frame_ns, frame.captured_ns
        cells = _cells(frame.luma) if self._is_steady(frame) else None
        if cells is not None and self._searched is not None:
            too_late = frame.captured_ns + step_ns - self._searched_ns > self._rest_ns
            if not too_late and not _moved(self._reference, cells):
                return self._searched
        faces = self._detector.detect(frame)
        self._note(faces, frame.captured_ns)
        self._reference = cells
        return faces

    def _is_steady(self, frame: Frame) -> bool:
        return (
            self._steady is not None
            and self._steady.frame_size == frame.size
            and self._detections >= self._min_detections
            and frame.captured_ns - self._steady_since_ns >= self._steady_ns
        )

    def _note(self, faces: Faces, captured_ns: int) -> None:
        self._searched, self._searched_ns = faces, captured_ns
        if self._steady is None or not _same(faces, self._steady):
            self._steady, self._steady_since_ns, self._detections = faces, captured_ns, 0
        self._detections += 1


def _cells(luma: Luma) -> Luma:
    """Return the mean of each cell of a picture; odd rows and columns at its edges do not count."""
    while max(luma.shape) > _MOST_CELLS and min(luma.shape) > 1:
        height, width = luma.shape[0] // 2, luma.shape[1] // 2
        even = luma[: 2 * height, : 2 * width]
        # Repeated halving takes OpenCV 21 us in all; one step by eight takes 97.
        luma = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return luma


def _moved(before: Luma | None, now: Luma) -> bool:
    if before is None or before.shape != now.shape:
        return True
    return cv2.norm(before, now, cv2.NORM_INF) > _MOTION_THRESHOLD


def _same(faces: Faces, others: Faces) -> bool:
    """Tell whether the same number of faces is at the same places."""
    if len(faces) != len(others) or faces.frame_size != others.frame_size:
        return False
    known = others.xyxy.tolist()
    return all(any(_is_near(box, other) for other in known) for box in faces.xyxy.tolist())


def _is_near(box: list[float], other: list[float]) -> bool:
    left, top, right, bottom = box
    reach = _SAME_PLACE * max(right - left, bottom - top)
    return (
        abs(left - other[0]) <= reach
        and abs(top - other[1]) <= reach
        and abs(right - other[2]) <= reach
        and abs(bottom - other[3]) <= reach
    )
