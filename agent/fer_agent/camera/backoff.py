"""How long to wait before a camera is opened again."""

from __future__ import annotations

import random

FIRST_S = 0.5
CAP_S = 5.0
"""Longest wait; with the opening itself a camera that came back is seen within ten seconds."""


class Backoff:
    """Waits that double up to a cap, each shortened by chance so that cameras do not march in step.

    The caller decides when things have gone well for long enough and calls `reset`.
    """

    def __init__(self, *, first_s: float = FIRST_S, cap_s: float = CAP_S) -> None:
        self._first_s = first_s
        self._cap_s = cap_s
        self._next_s = first_s

    def next_s(self) -> float:
        """Seconds to wait this time: between half of the current step and all of it."""
        step_s = self._next_s
        self._next_s = min(2 * step_s, self._cap_s)
        return step_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing

    def reset(self) -> None:
        """Start again from the first step."""
        self._next_s = self._first_s
