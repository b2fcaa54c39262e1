"""The comparison of a pending version's speed with that of the one before; does no I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fer_agent.updates.activation.journal import ClassifierFigures

WINDOW_S: Final = 60.0
"""Seconds that the figures of the version before cover."""

_LEAST_S: Final = 5.0
"""Less than this is no basis for a comparison."""


@dataclass(frozen=True, slots=True)
class HealthSample:
    """Frames and faces between two checks.

    Attributes:
        seconds: time between them.
        captured: frames that the cameras gave.
        processed: frames that went through the pipelines.
        faces: faces classified.
        faces_ns: time spent on them.
    """

    seconds: float
    captured: int
    processed: int
    faces: int
    faces_ns: int


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a pending version.

    Attributes:
        confirm_s: good seconds after which it is confirmed.
        least_fps: share of the frame rate before that it has to reach.
        most_face_ms: how many times as long it may take for a face. It is slow only by both
            limits: more people in view slow every model down, and a face costs more when the
            board is busy.
    """

    confirm_s: float = 600.0
    least_fps: float = 0.8
    most_face_ms: float = 1.25


class HealthTally:
    """The sum of one version's samples, the newest `window_s` seconds of them.

    Args:
        window_s: how far back it reaches; None for all.
    """

    def __init__(self, window_s: float | None = None) -> None:
        self._window_s = window_s
        self._samples: deque[HealthSample] = deque()
        self.seconds = 0.0
        """Seconds in which frames came."""
        self._processed = self._faces = self._faces_ns = 0

    def add(self, sample: HealthSample) -> None:
        """Count a sample, unless it has no frames, as while a camera is away."""
        if not sample.captured and not sample.processed:
            return
        self._count(sample, 1)
        if self._window_s is not None:
            self._samples.append(sample)
            while self.seconds > self._window_s and len(self._samples) > 1:
                self._count(self._samples.popleft(), -1)

    def figures(self) -> ClassifierFigures | None:
        """Return the version's figures; None while there are too few samples."""
        if self.seconds < _LEAST_S:
            return None
        return ClassifierFigures(
            seconds=self.seconds,
            fps=self._processed / self.seconds,
            face_ms=self._faces_ns / 1e6 / self._faces if self._faces else None,
        )

    def _count(self, sample: HealthSample, sign: int) -> None:
        self.seconds += sign * sample.seconds
        self._processed += sign * sample.processed
        self._faces += sign * sample.faces
        self._faces_ns += sign * sample.faces_ns


class Verdict(str, Enum):
    """The result of a health check."""

    WAIT = "wait"
    CONFIRM = "confirm"
    SLOW = "slow"


def check_health(tally: HealthTally, baseline: ClassifierFigures | None, rules: Rules) -> Verdict:
    """Check a version that neither failed nor died so far.

    Args:
        tally: its samples since it took over.
        baseline: figures of the version before; None where unknown, and then time alone counts.
        rules: the limits.
    """
    if tally.seconds < rules.confirm_s:
        return Verdict.WAIT
    figures = tally.figures()
    if baseline is None or figures is None or not baseline.face_ms or not figures.face_ms:
        return Verdict.CONFIRM
    slower = figures.fps < rules.least_fps * baseline.fps
    costlier = figures.face_ms > rules.most_face_ms * baseline.face_ms
    return Verdict.SLOW if slower and costlier else Verdict.CONFIRM
