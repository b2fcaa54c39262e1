"""The waits before something that failed is tried again."""

from __future__ import annotations

import random


class Backoff:
    """Waits that double up to a cap, each shortened at random so that many do not retry in step.

    The caller decides when things have gone well for long enough and calls `reset`.
    """

    def __init__(self, *, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def next_s(self, *, hopeless: bool = False) -> float:
        """Return the seconds to wait this time: between half of the current step and all of it.

        Args:
            hopeless: whether only a person can fix the fault: then the longest wait comes at once.
        """
        step_s = self._longest_s if hopeless else self._next_s
        self._next_s = min(2 * self._next_s, self._longest_s)
        return step_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing

    def reset(self) -> None:
        """Start again from the first step."""
        self._next_s = self._first_s
