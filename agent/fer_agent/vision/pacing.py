"""A frame rate limit, and the periodic task that sets it while the board throttles itself."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from fer_agent.system.board import BoardState, read_heat, was_throttled
from fer_agent.vision.ports import Camera
from fer_agent.vision.records import CameraStats, Frame, Gap

logger = logging.getLogger(__name__)

STEPS_FPS: Final = (15.0, 8.0, 4.0)
"""Most frames a second at each step down; the last one, of a camera of 10 frames a second and more,
still sees a new face within 300 ms."""

_READ_S: Final = 10.0
"""Seconds between two readings, in which a step down takes effect."""

_RECOVERY_S: Final = 60.0
"""Seconds without throttling before a step up: a board that is hot cools slowly."""


class Pace:
    """The highest rate at which frames are taken; set by one thread, read by the pipelines."""

    def __init__(self) -> None:
        self.interval_ns = 0
        """Least time between two frames, in nanoseconds; 0 takes all."""

    def limit(self, fps: float | None) -> None:
        """Take at most `fps` frames a second; None takes all."""
        self.interval_ns = 0 if fps is None else round(1e9 / fps)


class PacedCamera:
    """A camera that drops frames to keep to a pace; satisfies `ports.Camera`.

    Args:
        camera: the camera.
        pace: the rate limit.
        stats: returns the camera's counters.
    """

    def __init__(self, camera: Camera, pace: Pace, stats: Callable[[], CameraStats]) -> None:
        self._camera = camera
        self._pace = pace
        self._stats = stats
        self._left_out = 0
        self.close = camera.close

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the camera's gaps, and its frames as far as the pace permits."""
        due_ns = before_ns = 0
        for frame in self._camera.frames():
            interval_ns = self._pace.interval_ns
            if isinstance(frame, Gap) or not interval_ns:
                due_ns = 0
                yield frame
                continue
            step_ns, before_ns = frame.captured_ns - before_ns, frame.captured_ns
            # Taken when it is nearer to the time than the next one will be.
            if frame.captured_ns + step_ns / 2 < due_ns:
                self._left_out += 1
                continue
            # Counted from when it was due, so that the mean rate is right at any camera's rate.
            due_ns = max(due_ns, frame.captured_ns - interval_ns // 2) + interval_ns
            yield frame

    def stats(self) -> CameraStats:
        """Return the camera's counters; frames left out here count as dropped."""
        counted = self._stats()
        return replace(counted, dropped=counted.dropped + self._left_out)


class ThrottleWatch:
    """Periodic task that slows the pipelines down in steps while the board throttles itself.

    Args:
        pace: the pace to set.
        read: reads the board's state.
        clock_s: monotonic seconds.
    """

    def __init__(
        self,
        pace: Pace,
        read: Callable[[], BoardState] = read_heat,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pace = pace
        self._read = read
        self._clock_s = clock_s
        self._before: BoardState | None = None
        self._read_s = -math.inf
        self._calm_s = clock_s()
        self._step = 0

    def tick(self) -> None:
        """Read the board's state when it is due, and go a step down or up."""
        now_s = self._clock_s()
        if now_s - self._read_s < _READ_S:
            return
        self._read_s = now_s
        now = self._read()
        before, self._before = self._before or now, now
        if was_throttled(before, now):
            self._calm_s = now_s
            self._go(min(self._step + 1, len(STEPS_FPS)), now)
        elif now_s - self._calm_s >= _RECOVERY_S:
            self._calm_s = now_s
            self._go(max(self._step - 1, 0), now)

    def close(self, *, orderly: bool) -> None:
        """End with the agent; there is nothing to do."""

    def _go(self, step: int, board: BoardState) -> None:
        if step == self._step:
            return
        self._step = step
        fps = STEPS_FPS[step - 1] if step else None
        self._pace.limit(fps)
        if fps is None:
            logger.info("the board runs at full speed again: all frames are taken")
        else:
            why = ", ".join(board.throttle_reasons) or "heat or power"
            logger.warning("the board throttles itself (%s): %g frames a second at most", why, fps)
