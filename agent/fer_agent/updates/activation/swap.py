"""The classifier that changes its model between two frames, and survives a bad one."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fer_agent.errors import InferenceError
from fer_agent.inference.setting import PLAIN, Setting
from fer_agent.mqtt.payloads import ModelInfo
from fer_agent.vision.ports import EmotionClassifier
from fer_agent.vision.records import EmotionScores, Frame, Tracks

logger = logging.getLogger(__name__)

_KEPT_SAMPLES = 4096
"""Calls between two looks at the figures, which come each second; with room."""


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A classifier that is loaded.

    Attributes:
        classifier: what runs.
        info: what it is, as published.
        labels: its class names in output order.
        setting: how it runs on this board.
        outdated: tells, once, when there is a new word on how it should run.
    """

    classifier: EmotionClassifier
    info: ModelInfo
    labels: tuple[str, ...]
    setting: Setting = PLAIN
    outdated: Callable[[], bool] = lambda: False


class SwappableClassifier:
    """Passes each frame to the model of the moment; satisfies `EmotionClassifier`.

    All pipelines share one. A frame is classified by exactly one model, and none is lost: what is
    under way when the model changes ends with the old one.

    Args:
        classifier: the model to begin with.
        fallback: what takes over when that one fails; None lets the failure through.
    """

    def __init__(
        self, classifier: EmotionClassifier, fallback: EmotionClassifier | None = None
    ) -> None:
        self._current = classifier
        self._fallback = fallback
        self._samples: deque[tuple[int, int]] = deque(maxlen=_KEPT_SAMPLES)
        self.failure: InferenceError | None = None
        """Why the fallback took over; None while it did not."""

    def classify(self, frame: Frame, tracks: Tracks) -> EmotionScores:
        """Classify all tracked faces of one frame in one batch.

        Raises:
            InferenceError: the model failed, and there is no fallback or it failed too.
        """
        current = self._current  # read once: a swap from another thread is for the next frame
        started_ns = time.perf_counter_ns()
        try:
            scores = current.classify(frame, tracks)
        except InferenceError as error:
            fallback = self._fallback
            if fallback is None or fallback is current:
                raise
            logger.warning("the new model failed, the one before goes on: %s", error)
            self.failure, self._current = error, fallback
            return fallback.classify(frame, tracks)
        self._samples.append((len(tracks), time.perf_counter_ns() - started_ns))
        return scores

    def swap(self, classifier: EmotionClassifier, fallback: EmotionClassifier | None) -> None:
        """Let another model see the next frame.

        Args:
            classifier: the model.
            fallback: as for the constructor.
        """
        # In this order: a frame in between must not fall back from the new one to nothing.
        self._fallback, self.failure = fallback, None
        self._current = classifier
        self._samples.clear()

    def trust(self) -> None:
        """Let the fallback go: the model has proved itself."""
        self._fallback = None

    def take(self) -> tuple[int, int]:
        """Return faces seen and nanoseconds spent on them since the last call."""
        faces = total_ns = 0
        for _ in range(len(self._samples)):
            count, spent_ns = self._samples.popleft()
            if count:
                faces += count
                total_ns += spent_ns
        return faces, total_ns
