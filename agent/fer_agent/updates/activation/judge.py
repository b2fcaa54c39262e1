"""Whether a version on probation does as well as the one before; pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fer_agent.updates.activation.journal import Figures

WINDOW_S: Final = 60.0
"""How far back the figures of the version before reach."""

_LEAST_S: Final = 5.0
"""Less than this is no basis for a comparison."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened between two looks.

    Attributes:
        seconds: time between them.
        captured: frames that the cameras gave.
        processed: frames that went through the pipelines.
        faces: faces classified.
        faces_ns: what that took.
    """

    seconds: float
    captured: int
    processed: int
    faces: int
    faces_ns: int

    @property
    def counts(self) -> bool:
        """Whether it says anything: without frames, as while a camera is away, it does not."""
        return self.captured > 0 or self.processed > 0


@dataclass(frozen=True, slots=True)
class Rules:
    """What a version on probation has to keep to.

    Attributes:
        confirm_s: good seconds after which it has proved itself.
        least_fps: share of the frame rate before that it has to reach.
        most_face_ms: how many times as long it may take for a face. Only both together condemn
            it: more people in view slow every model down, and a face costs more when the board
            is busy.
    """

    confirm_s: float = 600.0
    least_fps: float = 0.8
    most_face_ms: float = 1.25


class Tally:
    """Samples of one version, the newest `window_s` seconds of them.

    Args:
        window_s: how far back it reaches; None for all.
    """

    def __init__(self, window_s: float | None = None) -> None:
        self._window_s = window_s
        self._samples: deque[Sample] = deque()
        self._seconds = 0.0
        self._processed = self._faces = self._faces_ns = 0

    def add(self, sample: Sample) -> None:
        """Take a sample in, if it says anything."""
        if not sample.counts:
            return
        self._count(sample, 1)
        if self._window_s is not None:
            self._samples.append(sample)
            while self._seconds > self._window_s and len(self._samples) > 1:
                self._count(self._samples.popleft(), -1)

    def figures(self) -> Figures | None:
        """Return how the version did; None while there is too little to say."""
        if self._seconds < _LEAST_S:
            return None
        return Figures(
            seconds=self._seconds,
            fps=self._processed / self._seconds,
            face_ms=self._faces_ns / 1e6 / self._faces if self._faces else None,
        )

    @property
    def seconds(self) -> float:
        """Seconds in which frames came."""
        return self._seconds

    def _count(self, sample: Sample, sign: int) -> None:
        self._seconds += sign * sample.seconds
        self._processed += sign * sample.processed
        self._faces += sign * sample.faces
        self._faces_ns += sign * sample.faces_ns


class Verdict(str, Enum):
    """What comes of it."""

    WAIT = "wait"
    CONFIRM = "confirm"
    SLOW = "slow"


def judge(tally: Tally, baseline: Figures | None, rules: Rules) -> Verdict:
    """Judge a version that neither failed nor died so far.

    Args:
        tally: how it did since it took over.
        baseline: how the one before did; None where that is not known, and then time alone counts.
        rules: what it has to keep to.
    """
    if tally.seconds < rules.confirm_s:
        return Verdict.WAIT
    figures = tally.figures()
    if baseline is None or figures is None or not baseline.face_ms or not figures.face_ms:
        return Verdict.CONFIRM
    slower = figures.fps < rules.least_fps * baseline.fps
    costlier = figures.face_ms > rules.most_face_ms * baseline.face_ms
    return Verdict.SLOW if slower and costlier else Verdict.CONFIRM
