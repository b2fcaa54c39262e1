"""Results as a Raspberry Pi 4 would write them, to compare and to draw."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from fer_agent.bench import paper
from fer_agent.bench.record import BenchReport

if TYPE_CHECKING:
    from collections.abc import Callable

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
PI_4 = "Raspberry Pi 4 Model B Rev 1.5"


def durations(p50: float) -> dict[str, Any]:
    times = {"mean": 1.1, "min": 0.9, "p50": 1.0, "p95": 1.5, "p99": 2.0, "max": 3.0}
    return {"n": 1000, **{name: round(p50 * share, 4) for name, share in times.items()}}


@pytest.fixture
def new_report() -> Callable[..., BenchReport]:
    """A function that makes a result; `speed` scales every duration."""

    def make(speed: float = 1.0, **changes: Any) -> BenchReport:
        memory = {
            "resident": 60_000_000,
            "private_dirty": 30_000_000,
            "unique": 40_000_000,
            "peak_resident": 61_000_000,
        }
        network = {
            "subject": {
                "name": "microexpnet-fer2013",
                "role": "emotion-model",
                "precision": "fp32",
                "file": "model.onnx",
                "sha256": "a" * 64,
                "bytes": 4_972_656,
                "macs": 25_000_000,
                "runtime": "onnx",
                "threads": 1,
            },
            "input": "uint8 [1, 1, 48, 48]",
            "latency_ms": durations(12.5 / speed),
            "fps": 72.7,
            "memory": memory,
        }
        pipeline = {
            "clip": "scene",
            "faces": 2,
            "faces_seen": 2.0,
            "detector": "yunet",
            "frame_ms": durations(50 / speed),
            "fps": 18.2,
            "cpu_share": 1.1,
            "stages_ms": {
                "capture": durations(5 / speed),
                "detect": durations(30 / speed),
                "classify": durations(20 / speed),
            },
            "memory": memory,
        }
        content = {
            "agent_version": "0.1.0",
            "started": WHEN,
            "finished": WHEN,
            "interrupted": False,
            "protocol": {"warmup": 100, "runs": 1000, "frames": 300},
            "machine": {
                "board": PI_4,
                "processor": "Cortex-A72",
                "architecture": "aarch64",
                "cores": 4,
                "memory_bytes": 4 << 30,
                "os": "Debian GNU/Linux 13",
                "python": "3.13.5",
                "runtimes": {"onnx": "1.32.0"},
                "load_before": 0.1,
            },
            "before": {},
            "after": {},
            "throttled_during": None,
            "networks": [network],
            "pipelines": [pipeline],
            "paper": paper.rows(PI_4, 25_000_000),
        }
        return BenchReport.model_validate(content | changes)

    return make
