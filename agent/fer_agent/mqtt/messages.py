"""The topics, and the functions that make payloads of the agent's records. No input or output.

Every topic is under `fer/v1/<device>/`. Within v1 fields are only ever added, so a reader
ignores what it does not know; a breaking change is a new root. The payloads' models are in
`payloads.py`; `schemas.py` writes the schemas and the AsyncAPI document from both.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from fer_agent.models.emotions import NOBODY, UNCERTAIN
from fer_agent.mqtt.payloads import (
    EVENT_DATA_SCHEMA,
    AlertPayload,
    Box,
    CameraStatusPayload,
    EventData,
    EventMessage,
    FaceState,
    HealthPayload,
    InfoPayload,
    ModelRef,
    Payload,
    StatePayload,
    StatusPayload,
)
from fer_agent.system.clock import ClockReading
from fer_agent.vision.records import EmotionEvent

_SEQUENCE_DIGITS = 16
_ROUND = 4
"""Decimals of shares on the wire: finer than any model's calibration, and a third of the bytes."""


class MessageKind(str, Enum):
    """The topics of a device."""

    STATUS = "status"
    INFO = "info"
    HEALTH = "health"
    CAMERA_STATUS = "camera-status"
    EVENTS = "events"
    STATE = "state"
    EMOTION = "emotion"
    ALERT = "alert"


@dataclass(frozen=True, slots=True)
class Channel:
    """The address and the delivery of one kind of message.

    Attributes:
        address: topic below the root, with `{name}` for the camera or alert.
        model: the payload's model; None for a plain word.
        qos: MQTT quality of service.
        retain: whether the broker keeps the newest for later subscribers.
        expiry_s: MQTT 5 message expiry; None for none. MQTT 3.1.1 has no such thing.
        content_type: MQTT 5 content type.
    """

    address: str
    model: type[Payload] | None
    qos: Literal[0, 1] = 1
    retain: bool = True
    expiry_s: int | None = None
    content_type: str = "application/json"


CHANNELS: Final[dict[MessageKind, Channel]] = {
    MessageKind.STATUS: Channel("status", StatusPayload),
    MessageKind.INFO: Channel("info", InfoPayload),
    MessageKind.HEALTH: Channel("health", HealthPayload, qos=0),
    MessageKind.CAMERA_STATUS: Channel("cameras/{name}/status", CameraStatusPayload),
    MessageKind.EVENTS: Channel(
        "cameras/{name}/events",
        EventMessage,
        retain=False,
        expiry_s=86_400,
        content_type="application/cloudevents+json; charset=utf-8",
    ),
    MessageKind.STATE: Channel("cameras/{name}/state", StatePayload, expiry_s=60),
    MessageKind.EMOTION: Channel(
        "cameras/{name}/emotion", None, expiry_s=60, content_type="text/plain; charset=utf-8"
    ),
    MessageKind.ALERT: Channel("alerts/{name}", AlertPayload),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """The parts of a topic.

    Attributes:
        device_id: the device.
        kind: the kind of its messages.
        name: the camera or alert; empty for topics of the device itself.
    """

    device_id: str
    kind: MessageKind
    name: str = ""

    def __str__(self) -> str:
        return f"{root(self.device_id)}/" + CHANNELS[self.kind].address.format(name=self.name)


def root(device_id: str) -> str:
    """Return the beginning of all topics of a device, without a slash at the end."""
    return f"fer/v1/{device_id}"


def parse_topic(topic: str) -> Topic | None:
    """Return the parts of a topic; None when it is none of this version's."""
    match topic.split("/"):
        case ["fer", "v1", device, ("status" | "info" | "health") as word]:
            return Topic(device, MessageKind(word))
        case ["fer", "v1", device, "cameras", camera, "status"]:
            return Topic(device, MessageKind.CAMERA_STATUS, camera)
        case ["fer", "v1", device, "cameras", camera, ("events" | "state" | "emotion") as word]:
            return Topic(device, MessageKind(word), camera)
        case ["fer", "v1", device, "alerts", alert]:
            return Topic(device, MessageKind.ALERT, alert)
    return None


def decode(kind: MessageKind, payload: bytes) -> Payload | str | None:
    """Read a payload back.

    Returns:
        The channel's model; the word itself on `emotion`; None for an empty payload, which clears
        a retained message.

    Raises:
        ValueError: the payload does not fit the channel's model (pydantic's ValidationError), or
            is not UTF-8.
    """
    if not payload:
        return None
    model = CHANNELS[kind].model
    return payload.decode() if model is None else model.model_validate_json(payload)


def uuid7() -> str:
    """Make a UUIDv7: Unix milliseconds, 12 bits of their fraction, 62 random bits.

    Ids made one after another sort in that order as long as the clock is not set back.
    Source: RFC 9562, sections 5.7 and 6.2 (method 3).
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = (nanoseconds << 12) // 1_000_000
    number = (milliseconds << 16 | 0x7000 | fraction) << 64 | 0b10 << 62 | secrets.randbits(62)
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@dataclass(frozen=True, slots=True)
class Identity:
    """The device and its session.

    Attributes:
        device_id: the device's name in every topic.
        session: UUID of this run of the agent.
    """

    device_id: str
    session: str

    @classmethod
    def of_this_run(cls, device_id: str) -> Identity:
        """Make the identity of a run that begins now."""
        return cls(device_id, uuid7())


@dataclass(frozen=True, slots=True)
class Origin:
    """The source of a camera's messages: the device's identity and the camera's name."""

    identity: Identity
    camera: str


def event_message(
    event: EmotionEvent,
    origin: Origin,
    *,
    sequence: int,
    recorded_ns: int,
    clock: ClockReading,
    replayed: bool = False,
) -> EventMessage:
    """Make the CloudEvent of an event.

    Args:
        event: the smoother's event.
        origin: its camera.
        sequence: number of the event among this origin's, from 1.
        recorded_ns: monotonic time at which the publisher took the event.
        clock: turns monotonic into wall time.
        replayed: whether it is sent late.
    """
    left, top, right, bottom = event.xyxy.tolist()
    identity = origin.identity
    return EventMessage(
        specversion="1.0",
        id=uuid7(),
        source=f"/fer/{identity.device_id}/cameras/{origin.camera}",
        type=f"fer.track.{event.kind.value}.v1",
        subject=str(event.track_id),
        time=clock.wall(event.captured_ns),
        recordedtime=clock.wall(recorded_ns),
        sequence=f"{sequence:0{_SEQUENCE_DIGITS}d}",
        datacontenttype="application/json",
        dataschema=EVENT_DATA_SCHEMA,
        data=EventData(
            session=identity.session,
            mono_ns=event.captured_ns,
            clock_synced=clock.synced,
            replayed=replayed,
            model=ModelRef(name=event.model.name, sha256=event.model.sha256),
            emotion=event.emotion,
            confidence=round(float(event.confidence), _ROUND),
            probabilities={
                label: round(share, _ROUND)
                for label, share in zip(event.labels, event.probs.tolist(), strict=True)
            },
            box=_normalised(event),
            face_size_px=max(0, round(min(right - left, bottom - top))),
            duration_s=round(event.duration_s, 3),
        ),
    )


def state_payload(
    faces: Sequence[EmotionEvent], origin: Origin, *, now_ns: int, clock: ClockReading
) -> StatePayload:
    """Make the state of a camera from the last event of each face in view, oldest track first."""
    return StatePayload(
        session=origin.identity.session,
        time=clock.wall(now_ns),
        dominant=dominant_emotion(faces),
        faces=tuple(
            FaceState(
                track_id=str(face.track_id),
                emotion=face.emotion,
                confidence=round(float(face.confidence), _ROUND),
                box=_normalised(face),
                since=clock.wall(face.started_ns),
            )
            for face in faces
        ),
    )


def dominant_emotion(faces: Iterable[EmotionEvent]) -> str:
    """Choose the one word for everybody in view.

    The emotion most faces show. Of emotions that as many faces show, the one with the higher sum of
    confidences, then the one with the largest face. A face the classifier is uncertain about has no
    vote unless all are like that; `nobody` when there is no face.
    """
    votes: dict[str, tuple[int, float, float]] = {}
    for face in faces:
        left, top, right, bottom = face.xyxy.tolist()
        count, confidence, largest = votes.get(face.emotion, (0, 0.0, 0.0))
        area = (right - left) * (bottom - top)
        votes[face.emotion] = (count + 1, confidence + face.confidence, max(largest, area))
    if len(votes) > 1:
        votes.pop(UNCERTAIN, None)
    return max(votes, key=votes.__getitem__, default=NOBODY)


def _normalised(event: EmotionEvent) -> Box:
    width, height = event.frame_size
    left, top, right, bottom = event.xyxy.tolist()
    return (
        _share(left / width),
        _share(top / height),
        _share(right / width),
        _share(bottom / height),
    )


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, value)), _ROUND)
