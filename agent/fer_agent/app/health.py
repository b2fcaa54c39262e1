"""Figures about the running agent, for its health message."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer_agent.mqtt.payloads import HealthPayload, LatencyPayload
from fer_agent.system import board, memory
from fer_agent.system.clock import ClockReading
from fer_agent.vision.timing import STAGES, percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fer_agent.mqtt.publisher import MqttPublisher
    from fer_agent.system.board import BoardState
    from fer_agent.vision.records import CameraStats
    from fer_agent.vision.timing import StageClock


@dataclass(frozen=True, slots=True)
class CameraMeter:
    """The counters and durations of one camera's pipeline.

    Attributes:
        stats: returns the camera's counters.
        clock: the durations of the stages.
    """

    stats: Callable[[], CameraStats]
    clock: StageClock


@dataclass(frozen=True, slots=True)
class _Totals:
    """Counters of all cameras at one moment."""

    at_ns: int
    captured: int
    dropped: int
    processed: int
    detected: int


def frames_of(meters: Iterable[CameraMeter]) -> tuple[int, int]:
    """Return how many frames all cameras gave since the start, and how many were processed."""
    captured = processed = 0
    for meter in meters:
        captured += meter.stats().captured
        processed += meter.clock.processed
    return captured, processed


class HealthReporter:
    """Figures since the report before."""

    def __init__(
        self,
        meters: Sequence[CameraMeter],
        *,
        session: str,
        interval_s: float,
        publisher: MqttPublisher | None,
    ) -> None:
        """Start counting.

        Args:
            meters: one for each enabled camera.
            session: the agent's session.
            interval_s: seconds between two reports; the service loop reads it.
            publisher: counts events and connections; None without one.
        """
        self.interval_s = interval_s
        self._meters = meters
        self._session = session
        self._publisher = publisher
        self._started_ns = time.monotonic_ns()
        self._last = self._totals()
        self._heat: BoardState | None = None

    def measure(self) -> HealthPayload:
        """Return the figures since the last call; rates are summed over all cameras."""
        before, now = self._last, self._totals()
        self._last = now
        elapsed_s = max((now.at_ns - before.at_ns) / 1e9, 1e-6)
        clock = ClockReading.now()
        publisher = self._publisher
        heat = board.read_heat()
        payload = HealthPayload(
            session=self._session,
            time=clock.wall(now.at_ns),
            uptime_s=round((now.at_ns - self._started_ns) / 1e9, 1),
            camera_fps=round((now.captured - before.captured) / elapsed_s, 2),
            process_fps=round((now.processed - before.processed) / elapsed_s, 2),
            skipped_fps=round((now.dropped - before.dropped) / elapsed_s, 2),
            detection_fps=round((now.detected - before.detected) / elapsed_s, 2),
            latency_ms=self._latencies(),
            memory_bytes=memory.figures()["private_dirty"],
            temperature_c=heat.temperature_c,
            throttled=board.was_throttled(self._heat or heat, heat),
            clock_synced=clock.synced,
            outbox=None if publisher is None else publisher.counters(),
            reconnects=None if publisher is None else publisher.reconnects,
        )
        self._heat = heat
        return payload

    def _totals(self) -> _Totals:
        stats = [meter.stats() for meter in self._meters]
        return _Totals(
            at_ns=time.monotonic_ns(),
            captured=sum(each.captured for each in stats),
            dropped=sum(each.dropped for each in stats),
            processed=sum(meter.clock.processed for meter in self._meters),
            detected=sum(meter.clock.detected for meter in self._meters),
        )

    def _latencies(self) -> dict[str, LatencyPayload]:
        taken = [meter.clock.take() for meter in self._meters]
        latencies = {}
        for stage in STAGES:
            found = percentiles([ms for each in taken for ms in each[stage]])
            if found is not None:
                p50, p95, p99 = (round(value, 3) for value in found)
                latencies[stage] = LatencyPayload(p50=p50, p95=p95, p99=p99)
        return latencies
