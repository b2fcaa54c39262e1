"""A started MQTT publisher for tests, its events, and what subscribers received from it."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np

from fer_agent.config.model import MqttConfig
from fer_agent.mqtt import schemas
from fer_agent.mqtt.messages import Identity, parse_topic, uuid7
from fer_agent.mqtt.payloads import HealthPayload, InfoPayload, ModelInfo, Models
from fer_agent.mqtt.publisher import MqttPublisher, SessionTiming
from fer_agent.vision.records import (
    CameraState,
    CameraStatus,
    EmotionEvent,
    EventKind,
    ModelIdentity,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = ModelIdentity("net", "ab" * 32)
LABELS = ("angry", "happy", "neutral")
QUICK = SessionTiming(first_wait_s=0.05, longest_wait_s=0.4, stable_s=60, connect_s=20, stop_s=20)
ONLINE = CameraStatus(CameraState.ONLINE)
OFFLINE = CameraStatus(CameraState.OFFLINE, "cable pulled")


def event(
    kind: EventKind = EventKind.UPDATED, track_id: int = 1, emotion: str = "happy"
) -> EmotionEvent:
    now_ns = time.monotonic_ns()
    return EmotionEvent(
        kind=kind,
        track_id=track_id,
        captured_ns=now_ns,
        emotion=emotion,
        confidence=0.8,
        labels=LABELS,
        probs=np.array([0.1, 0.8, 0.1], np.float32),
        xyxy=np.array([10, 10, 90, 90], np.float32),
        frame_size=(640, 480),
        started_ns=now_ns - 1_000_000,
        model=MODEL,
    )


def information() -> InfoPayload:
    return InfoPayload(
        agent_version="1",
        python_version="3",
        os="Linux",
        board="test",
        runtime="none",
        models=Models(classifier=ModelInfo(name=MODEL.name, sha256=MODEL.sha256)),
        cameras=("front",),
        config_sha256="cd" * 32,
        deployment_context="research",
        session=uuid7(),
    )


def health(publisher: MqttPublisher) -> HealthPayload:
    return HealthPayload(
        session=uuid7(),
        time="2026-01-01T00:00:00Z",
        uptime_s=1,
        outbox=publisher.counters(),
    )


@contextmanager
def publishing(
    port: int,
    *,
    timing: SessionTiming = QUICK,
    tls: bool = False,
    keepalive_s: int | None = None,
    **settings: Any,
) -> Iterator[MqttPublisher]:
    """A started publisher that is stopped at the end and leaves no thread behind."""
    before = publisher_threads()
    scheme = "mqtts" if tls else "mqtt"
    config = MqttConfig(broker=f"{scheme}://127.0.0.1:{port}", **settings)
    if keepalive_s is not None:  # shorter than a configuration may have it
        config = config.model_copy(update={"keepalive_s": keepalive_s})
    publisher = MqttPublisher(config, Identity("fer-1", uuid7()), timing=timing)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stop()
        # A thread that is still inside an attempt to connect ends with it.
        for thread in publisher_threads() - before:
            thread.join(60)
        assert publisher_threads() == before


def publisher_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "mqtt-publisher"}


def content(message: Any) -> Any:
    return json.loads(message.payload)


def delivered(subscriber: Any) -> list[int]:
    """The sequence numbers that arrived, first copies only, in order of arrival."""
    seen: dict[str, int] = {}
    for message in subscriber.on("/events"):
        seen.setdefault(content(message)["id"], int(content(message)["sequence"]))
    return list(seen.values())


def states(subscriber: Any) -> list[str]:
    return list(subscriber.states("fer-1/status"))


def validate_all(subscriber: Any) -> None:
    documents = schemas.documents()
    for message in subscriber.messages:
        topic = parse_topic(message.topic)
        assert topic is not None, message.topic
        name = f"{schemas.schema_name(topic.kind)}.schema.json"
        if name in documents and message.payload:
            jsonschema.validate(content(message), documents[name])
