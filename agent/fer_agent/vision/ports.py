"""The protocols between packages; backends satisfy them by shape, not by inheritance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fer_agent.vision.records import EmotionEvent, EmotionScores, Faces, Frame, Gap, Tracks


class Camera(Protocol):
    """A source of frames with a separate thread; only the newest frame is kept."""

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield frames as they come, and a `Gap` where they stopped; ends with the source.

        A live camera never ends by itself: faults are published states, and it is reopened.

        Raises:
            CameraError: a file source cannot be opened or read at all.
        """
        ...

    def close(self) -> None:
        """Stop from any thread; a waiting `frames()` returns. Closing twice is harmless."""
        ...


class FaceDetector(Protocol):
    """The face detector."""

    def detect(self, frame: Frame) -> Faces:
        """Find the faces in one frame, best score first.

        Raises:
            InferenceError: the runtime refused the input or failed while running.
        """
        ...


class FaceTracker(Protocol):
    """The tracker, which gives faces stable ids."""

    def update(self, faces: Faces, captured_ns: int) -> Tracks:
        """Match one frame's faces with the tracks known so far."""
        ...

    def reset(self) -> None:
        """Forget all tracks; ids go on rising."""
        ...


class EmotionClassifier(Protocol):
    """The classifier, which reads emotions from tracked faces."""

    def classify(self, frame: Frame, tracks: Tracks) -> EmotionScores:
        """Classify all tracked faces of one frame in one batch.

        Raises:
            InferenceError: the runtime refused the input or failed while running.
        """
        ...


class Smoother(Protocol):
    """The smoother, which turns per-frame scores into events about tracks."""

    def update(self, tracks: Tracks, scores: EmotionScores, captured_ns: int) -> list[EmotionEvent]:
        """Take one frame's scores in; return the events they cause, oldest track first."""
        ...

    def finish(self) -> list[EmotionEvent]:
        """End every open track, as of its last sight."""
        ...


class Publisher(Protocol):
    """The receiver of events."""

    def publish(self, event: EmotionEvent) -> None:
        """Accept one event and return at once; delivery happens elsewhere."""
        ...


class AlertSink(Protocol):
    """The receiver of alerts, such as `MqttPublisher`."""

    def raise_alert(self, alert_id: str, text: str) -> None:
        """Raise an alert, or change its text."""
        ...

    def clear_alert(self, alert_id: str) -> None:
        """Clear an alert; harmless when it is not there."""
        ...


class InferenceSession(Protocol):
    """A loaded network with one input, on any runtime."""

    @property
    def input_shape(self) -> tuple[int | str | None, ...]:
        """The input's shape as the model declares it; names or None where dynamic."""
        ...

    def run(self, tensor: NDArray[np.generic]) -> Mapping[str, NDArray[np.generic]]:
        """Run the network once.

        Returns:
            Output arrays by the names in the model file.

        Raises:
            InferenceError: the runtime refused the input or failed while running.
        """
        ...
