"""The paper's protocol: one input at a time, unmeasured passes, then measured ones.

Only the standard library is loaded here, so that a measured process holds nothing else.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

WARMUP: Final = 100
RUNS: Final = 1000


@dataclass(frozen=True, slots=True)
class Protocol:
    """The number of passes: `warmup` unmeasured ones, then `runs` measured ones."""

    warmup: int = WARMUP
    runs: int = RUNS


class StopFlag:
    """A request to end early; the results until then still count."""

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        """Ask to end; safe in a signal handler."""
        self.is_set = True

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Set the flag on SIGINT and SIGTERM instead of dying."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, lambda *_: self.set()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def measure(call: Callable[[], object], protocol: Protocol, stop: StopFlag) -> list[int]:
    """Time one call again and again.

    Args:
        call: the pass.
        protocol: number of passes.
        stop: ends the measurement early.

    Returns:
        Durations in nanoseconds, in order; fewer than asked for when stopped.
    """
    clock = time.perf_counter_ns
    for _ in range(protocol.warmup):
        if stop.is_set:
            return []
        call()
    durations_ns = []
    for _ in range(protocol.runs):
        if stop.is_set:
            break
        started_ns = clock()
        call()
        durations_ns.append(clock() - started_ns)
    return durations_ns


def summary(durations_ns: Sequence[int]) -> dict[str, Any] | None:
    """Return count, mean, percentiles and rate of durations; None of none.

    Percentiles are nearest-rank: each is one of the durations.
    """
    if not durations_ns:
        return None
    ordered = sorted(durations_ns)

    def rank(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)] / 1e6

    mean_ms = sum(ordered) / len(ordered) / 1e6
    return {
        "n": len(ordered),
        "mean": round(mean_ms, 4),
        "min": round(ordered[0] / 1e6, 4),
        "p50": round(rank(0.50), 4),
        "p95": round(rank(0.95), 4),
        "p99": round(rank(0.99), 4),
        "max": round(ordered[-1] / 1e6, 4),
    }
