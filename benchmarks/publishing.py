"""What an event costs: making and encoding its message, and handing it to the publisher.

Run `python benchmarks/publishing.py`. No broker is needed; the outbox fills and drops.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from fer_agent.clock import ClockReading
from fer_agent.config import MqttConfig
from fer_agent.messages import Identity, Origin, event_message
from fer_agent.model_store import EMOTIONS
from fer_agent.mqtt.publisher import MqttPublisher
from fer_agent.payloads import InfoPayload, ModelInfo, ModelRef, Models
from fer_agent.records import EmotionEvent, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 5000
SHA256 = "0" * 64


def median_us(work: Callable[[], object], pause_s: float = 0.0) -> str:
    """Time a call many times; returns median and 99th percentile in microseconds."""
    taken = []
    for _ in range(RUNS if not pause_s else RUNS // 10):
        begun = time.perf_counter_ns()
        work()
        taken.append((time.perf_counter_ns() - begun) / 1e3)
        time.sleep(pause_s)
    return f"median {statistics.median(taken):6.1f} us, p99 {np.percentile(taken, 99):6.1f} us"


def main() -> None:
    """Print the table."""
    now_ns = time.monotonic_ns()
    event = EmotionEvent(
        kind=EventKind.UPDATED,
        track_id=1,
        captured_ns=now_ns,
        emotion="happy",
        confidence=0.9,
        labels=EMOTIONS[:7],
        probs=np.full(7, 1 / 7, np.float32),
        xyxy=np.array([10, 10, 90, 90], np.float32),
        frame_size=(640, 480),
        started_ns=now_ns,
    )
    identity = Identity.of_this_run("benchmark")
    origin = Origin(identity, "front", ModelRef(name="net", sha256=SHA256))
    clock = ClockReading.now()
    info = InfoPayload(
        agent_version="0",
        python_version="3",
        os="",
        board="",
        runtime="",
        models=Models(classifier=ModelInfo(name="net", sha256=SHA256)),
        cameras=("front",),
        config_sha256=SHA256,
        deployment_context="research",
        session=identity.session,
    )
    publisher = MqttPublisher(MqttConfig(broker="mqtt://127.0.0.1:9"), identity, info)
    camera = publisher.camera("front")
    publisher.start()

    def encode() -> bytes:
        message = event_message(event, origin, sequence=1, recorded_ns=now_ns, clock=clock)
        return message.encode()

    print(f"message, {len(encode())} bytes  {median_us(encode)}")
    print(f"publish, in a burst  {median_us(lambda: camera.publish(event))}")
    print(f"publish, 500 a second  {median_us(lambda: camera.publish(event), 0.002)}")
    publisher.stop()


if __name__ == "__main__":
    main()
