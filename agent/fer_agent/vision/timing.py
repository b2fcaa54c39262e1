"""Wrappers that satisfy the ports they wrap: what each stage takes, and who cuts a run short."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from fer_agent.vision.records import Gap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_agent.vision.ports import (
        Camera,
        EmotionClassifier,
        FaceDetector,
        FaceTracker,
        Publisher,
        Smoother,
    )
    from fer_agent.vision.records import Faces, Frame

_P = ParamSpec("_P")
_R = TypeVar("_R")

_KEPT_SAMPLES = 2048
"""Latest durations kept for each stage: a minute at 30 frames a second, with room."""

STAGES = ("detect", "track", "classify", "smooth", "publish", "total")
"""The stages that are timed; total is from capture to the last event handed over."""


class StageClock:
    """The latest durations of each stage of one pipeline; written there, read by health."""

    def __init__(self) -> None:
        self._samples_ns: dict[str, deque[int]] = {
            stage: deque(maxlen=_KEPT_SAMPLES) for stage in STAGES
        }
        self.processed = 0
        """Frames that went through all stages."""
        self.detected = 0
        """Frames in which faces were searched for."""

    def timed(self, stage: str, call: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return `call` with its duration noted under `stage`."""
        samples = self._samples_ns[stage]

        def timed_call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            started_ns = time.perf_counter_ns()
            result = call(*args, **kwargs)
            samples.append(time.perf_counter_ns() - started_ns)
            return result

        return timed_call

    def frame_done(self, captured_ns: int | None) -> None:
        """Note that a frame left the last stage; its age counts when the capture is known."""
        if captured_ns is not None:
            self._samples_ns["total"].append(time.monotonic_ns() - captured_ns)
        self.processed += 1

    def take(self) -> dict[str, list[float]]:
        """Return each stage's durations in milliseconds since the last call, and forget them."""
        taken: dict[str, list[float]] = {}
        for stage, samples in self._samples_ns.items():
            taken[stage] = [samples.popleft() / 1e6 for _ in range(len(samples))]
        return taken


def percentiles(samples_ms: list[float]) -> tuple[float, float, float] | None:
    """Return the 50th, 95th and 99th percentile, or None of no samples."""
    if not samples_ms:
        return None
    p50, p95, p99 = np.percentile(samples_ms, (50, 95, 99))
    return float(p50), float(p95), float(p99)


class TimedCamera:
    """A camera whose frames are timed until the pipeline asks for the next one.

    Args:
        camera: the camera.
        clock: notes the times.
        own_pace: whether `captured_ns` is the time of capture; a file played as fast as it is
            taken has the clip's own time, which says nothing about age.
    """

    def __init__(self, camera: Camera, clock: StageClock, *, own_pace: bool = True) -> None:
        self._camera = camera
        self._clock = clock
        self._own_pace = own_pace
        self.close = camera.close

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the camera's frames."""
        for frame in self._camera.frames():
            yield frame
            if not isinstance(frame, Gap):
                self._clock.frame_done(frame.captured_ns if self._own_pace else None)


class FirstFrames:
    """A camera that ends after its first frames."""

    def __init__(self, camera: Camera, limit: int) -> None:
        self._camera = camera
        self._limit = limit
        self.close = camera.close

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the camera's frames up to the limit, gaps not counted, then close it."""
        left = self._limit
        for frame in self._camera.frames():
            yield frame
            left -= not isinstance(frame, Gap)
            if left <= 0:
                self._camera.close()
                return


class TimedDetector:
    """A detector whose calls are timed and counted."""

    def __init__(self, detector: FaceDetector, clock: StageClock) -> None:
        self._detect = clock.timed("detect", detector.detect)
        self._clock = clock

    def detect(self, frame: Frame) -> Faces:
        """Find the faces in one frame, best score first."""
        self._clock.detected += 1
        return self._detect(frame)


class TimedTracker:
    """A tracker whose updates are timed."""

    def __init__(self, tracker: FaceTracker, clock: StageClock) -> None:
        self.update = clock.timed("track", tracker.update)
        self.reset = tracker.reset


class TimedClassifier:
    """A classifier whose calls, cropping included, are timed."""

    def __init__(self, classifier: EmotionClassifier, clock: StageClock) -> None:
        self.classify = clock.timed("classify", classifier.classify)


class TimedSmoother:
    """A smoother whose updates are timed."""

    def __init__(self, smoother: Smoother, clock: StageClock) -> None:
        self.update = clock.timed("smooth", smoother.update)
        self.finish = smoother.finish


class TimedPublisher:
    """A publisher whose hand-overs are timed."""

    def __init__(self, publisher: Publisher, clock: StageClock) -> None:
        self.publish = clock.timed("publish", publisher.publish)
