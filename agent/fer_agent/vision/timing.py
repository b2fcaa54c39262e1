"""The durations of a pipeline's stages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Final, ParamSpec, TypeVar, cast

import numpy as np

from fer_agent.vision.ports import Camera
from fer_agent.vision.records import Frame, Gap

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Stage = TypeVar("_Stage")

_KEPT_SAMPLES = 2048
"""Latest durations kept for each stage: more than a minute at 30 frames a second."""

_METHODS: Final = {
    "detect": ("detect",),
    "track": ("update", "reset"),
    "classify": ("classify",),
    "smooth": ("update", "finish"),
    "publish": ("publish",),
}
"""The methods of each stage, the timed one first."""

STAGES: Final = (*_METHODS, "total")
"""The timed stages; total is from capture to the last event handed over."""


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
        note = self._samples_ns[stage].append
        is_search = stage == "detect"

        def timed_call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            if is_search:
                self.detected += 1
            started_ns = time.perf_counter_ns()
            result = call(*args, **kwargs)
            note(time.perf_counter_ns() - started_ns)
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
            taken has the clip's own time, which is no measure of age.
        max_frames: the camera is closed after so many frames, gaps not counted; None for all.
    """

    def __init__(
        self,
        camera: Camera,
        clock: StageClock,
        *,
        own_pace: bool = True,
        max_frames: int | None = None,
    ) -> None:
        self._camera = camera
        self._clock = clock
        self._own_pace = own_pace
        self._max_frames = max_frames
        self.close = camera.close

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the camera's frames."""
        for frame in self._camera.frames():
            yield frame
            if isinstance(frame, Gap):
                continue
            self._clock.frame_done(frame.captured_ns if self._own_pace else None)
            if self._clock.processed == self._max_frames:
                self.close()
                return


def timed(stage: _Stage, name: str, clock: StageClock) -> _Stage:
    """Return a stage that works like `stage` and notes the duration of each call.

    Args:
        stage: detector, tracker, classifier, smoother or publisher.
        name: its name among `STAGES`.
        clock: notes the durations.
    """
    method, *others = _METHODS[name]
    wrapper = SimpleNamespace(**{other: getattr(stage, other) for other in others})
    setattr(wrapper, method, clock.timed(name, getattr(stage, method)))
    return cast("_Stage", wrapper)
