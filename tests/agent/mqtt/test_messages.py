"""Topics, payloads and the schemas that are made from them."""

from __future__ import annotations

import json
import time
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, get_args

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError

from fer_agent.models.emotions import EMOTIONS, UNCERTAIN
from fer_agent.mqtt import messages, payloads, schemas
from fer_agent.mqtt.messages import CHANNELS, Identity, MessageKind, Origin, Topic, parse_topic
from fer_agent.system.clock import ClockReading, clock_synced
from fer_agent.vision.records import EmotionEvent, EventKind, ModelIdentity

if TYPE_CHECKING:
    from pathlib import Path

SHA256 = "ab" * 32
LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
CAPTURED_NS = 5_000_000_000
CLOCK = ClockReading(offset_ns=1_700_000_000_000_000_000, synced=True)
IDENTITY = Identity("fer-1", "01890000-0000-7000-8000-000000000000")
ORIGIN = Origin(IDENTITY, "front")


def event(
    kind: EventKind = EventKind.UPDATED,
    track_id: int = 7,
    emotion: str = "happy",
    confidence: float = 0.9,
    xyxy: tuple[float, float, float, float] = (64.0, 48.0, 128.0, 144.0),
) -> EmotionEvent:
    return EmotionEvent(
        kind=kind,
        track_id=track_id,
        captured_ns=CAPTURED_NS,
        emotion=emotion,
        confidence=confidence,
        labels=LABELS,
        probs=np.array([0.01, 0.02, 0.03, 0.9, 0.02, 0.01, 0.01], np.float32),
        xyxy=np.array(xyxy, np.float32),
        frame_size=(640, 480),
        started_ns=CAPTURED_NS - 1_500_000_000,
        model=ModelIdentity("net", SHA256),
    )


def encoded(of: EmotionEvent, **overrides: Any) -> dict[str, Any]:
    arguments = {"sequence": 3, "recorded_ns": CAPTURED_NS + 20_000_000, "clock": CLOCK}
    message = messages.event_message(of, ORIGIN, **{**arguments, **overrides})
    content = json.loads(message.encode())
    assert isinstance(content, dict)
    return content


def validate(name: str, content: object) -> None:
    jsonschema.validate(
        content,
        schemas.documents()[f"{name}.schema.json"],
        format_checker=jsonschema.FormatChecker(),
    )


def test_an_event_is_a_cloudevent_with_all_that_the_contract_names() -> None:
    content = encoded(event())

    validate("event", content)
    validate("event-data", content["data"])
    assert uuid.UUID(content.pop("id")).version == 7
    assert content == {
        "specversion": "1.0",
        "source": "/fer/fer-1/cameras/front",
        "type": "fer.track.updated.v1",
        "subject": "7",
        "time": "2023-11-14T22:13:25Z",
        "recordedtime": "2023-11-14T22:13:25.020000Z",
        "sequence": "0000000000000003",
        "datacontenttype": "application/json",
        "dataschema": "urn:fer-agent:schema:v1:event-data",
        "data": {
            "session": IDENTITY.session,
            "mono_ns": CAPTURED_NS,
            "clock_synced": True,
            "replayed": False,
            "model": {"name": "net", "sha256": SHA256},
            "emotion": "happy",
            "confidence": 0.9,
            "probabilities": dict(
                zip(LABELS, (0.01, 0.02, 0.03, 0.9, 0.02, 0.01, 0.01), strict=True)
            ),
            "box": [0.1, 0.1, 0.2, 0.3],
            "face_size_px": 64,
            "duration_s": 1.5,
        },
    }


@pytest.mark.parametrize("kind", list(EventKind))
def test_every_kind_of_event_has_its_type(kind: EventKind) -> None:
    content = encoded(event(kind))

    validate("event", content)
    assert content["type"] == f"fer.track.{kind.value}.v1"


def test_a_box_that_reaches_outside_the_frame_is_cut_at_its_edges() -> None:
    assert encoded(event(xyxy=(-20, -1, 700, 600)))["data"]["box"] == [0.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("xyxy", [(300, 100, 400, 150), (300, 100, 350, 200)])
def test_the_size_of_a_face_is_its_shorter_side(xyxy: tuple[float, float, float, float]) -> None:
    assert encoded(event(xyxy=xyxy))["data"]["face_size_px"] == 50


def test_an_event_sent_again_is_the_same_but_for_the_mark() -> None:
    first = messages.event_message(
        event(), ORIGIN, sequence=1, recorded_ns=CAPTURED_NS, clock=CLOCK
    )

    again = first.again()

    assert json.loads(again.encode())["data"]["replayed"] is True
    assert again.again() is again
    assert again.model_copy(update={"data": first.data}) == first


def test_a_word_outside_the_contract_is_refused() -> None:
    with pytest.raises(ValidationError, match="emotion"):
        encoded(event(emotion="joy"))


def test_the_words_on_the_wire_are_the_manifests_and_uncertain() -> None:
    assert get_args(payloads.Label) == EMOTIONS
    assert get_args(payloads.Word) == (*EMOTIONS, UNCERTAIN)


def test_the_sequence_sorts_as_text() -> None:
    numbers = [1, 9, 10, 99, 12_345_678]

    texts = [encoded(event(), sequence=number)["sequence"] for number in numbers]

    assert sorted(texts) == texts


def test_ids_sort_in_the_order_they_were_made() -> None:
    # 12 bits divide a millisecond into steps of 244 ns; a microsecond apart is a step apart.
    ids = []
    for _ in range(300):
        ids.append(messages.uuid7())
        until = time.time_ns() + 1_000
        while time.time_ns() < until:
            pass

    assert sorted(ids) == ids
    assert len(set(ids)) == len(ids)
    assert {uuid.UUID(each).version for each in ids} == {7}
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}
    age_s = time.time() - (uuid.UUID(ids[-1]).int >> 80) / 1000
    assert 0 <= age_s < 60


@pytest.mark.parametrize(
    ("topic", "text"),
    [
        (Topic("d-1", MessageKind.STATUS), "fer/v1/d-1/status"),
        (Topic("d-1", MessageKind.INFO), "fer/v1/d-1/info"),
        (Topic("d-1", MessageKind.HEALTH), "fer/v1/d-1/health"),
        (Topic("d-1", MessageKind.CAMERA_STATUS, "a"), "fer/v1/d-1/cameras/a/status"),
        (Topic("d-1", MessageKind.EVENTS, "a"), "fer/v1/d-1/cameras/a/events"),
        (Topic("d-1", MessageKind.STATE, "a"), "fer/v1/d-1/cameras/a/state"),
        (Topic("d-1", MessageKind.EMOTION, "a"), "fer/v1/d-1/cameras/a/emotion"),
        (Topic("d-1", MessageKind.ALERT, "hot"), "fer/v1/d-1/alerts/hot"),
    ],
)
def test_a_topic_is_written_and_read(topic: Topic, text: str) -> None:
    assert str(topic) == text
    assert parse_topic(text) == topic


@pytest.mark.parametrize(
    "text", ["fer/v2/d/status", "fer/v1/d", "fer/v1/d/news", "fer/v1/d/cameras/a", "other", ""]
)
def test_a_foreign_topic_is_none_of_ours(text: str) -> None:
    assert parse_topic(text) is None


def test_the_table_of_channels_follows_the_contract() -> None:
    assert {
        kind.value: (channel.qos, channel.retain, channel.expiry_s)
        for kind, channel in CHANNELS.items()
    } == {
        "status": (1, True, None),
        "info": (1, True, None),
        "health": (0, True, None),
        "camera-status": (1, True, None),
        "events": (1, False, 86_400),
        "state": (1, True, 60),
        "emotion": (1, True, 60),
        "alert": (1, True, None),
    }


def test_state_lists_the_faces_and_the_dominant_word() -> None:
    faces = [event(track_id=1), event(track_id=2, emotion="sad", confidence=0.5)]

    payload = messages.state_payload(faces, ORIGIN, now_ns=CAPTURED_NS, clock=CLOCK)

    content = json.loads(payload.encode())
    validate("state", content)
    assert content["dominant"] == "happy"
    assert [(face["track_id"], face["emotion"]) for face in content["faces"]] == [
        ("1", "happy"),
        ("2", "sad"),
    ]
    assert content["faces"][0]["since"] == "2023-11-14T22:13:23.500000Z"


@pytest.mark.parametrize(
    ("faces", "word"),
    [
        ([], "nobody"),
        ([event()], "happy"),
        ([event(), event(emotion="sad"), event(emotion="sad")], "sad"),
        ([event(confidence=0.6), event(emotion="sad", confidence=0.7)], "sad"),
        ([event(), event(emotion="sad", xyxy=(0, 0, 300, 300))], "sad"),
        (
            [event(xyxy=(900, 700, 1000, 800)), event(emotion="sad", xyxy=(0, 0, 150, 150))],
            "sad",
        ),
        ([event(emotion="uncertain"), event(emotion="uncertain"), event()], "happy"),
        ([event(emotion="uncertain")], "uncertain"),
    ],
    ids=["nobody", "one", "most", "confidence", "size", "area", "uncertain-abstains", "uncertain"],
)
def test_the_dominant_emotion(faces: list[EmotionEvent], word: str) -> None:
    assert messages.dominant_emotion(faces) == word


def now() -> datetime:
    return datetime.now(timezone.utc)


PAYLOADS: dict[str, payloads.Payload] = {
    "status": payloads.StatusPayload(state="offline", session=IDENTITY.session, since=None),
    "info": payloads.InfoPayload(
        agent_version="1",
        python_version="3",
        os="Linux",
        board="Pi",
        runtime="onnxruntime 1",
        models=payloads.Models(classifier=payloads.ModelInfo(name="net", sha256=SHA256)),
        cameras=("front",),
        config_sha256=SHA256,
        deployment_context="home",
        session=IDENTITY.session,
    ),
    "health": payloads.HealthPayload(
        session=IDENTITY.session,
        time=now(),
        uptime_s=1.0,
        latency_ms={"detect": payloads.LatencyPayload(p50=1, p95=2, p99=3)},
        outbox=payloads.OutboxHealth(published=1, acknowledged=1, dropped=0, queued=0),
    ),
    "camera-status": payloads.CameraStatusPayload(state="online", reason="", since=now()),
    "alert": payloads.AlertPayload(text="hot", session=IDENTITY.session, since=now()),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_payload_follows_its_schema_and_reads_back(name: str) -> None:
    payload = PAYLOADS[name]

    validate(name, json.loads(payload.encode()))
    assert messages.decode(MessageKind(name), payload.encode()) == payload


def test_the_schema_of_events_refuses_what_the_contract_forbids() -> None:
    content = encoded(event())
    content["data"]["confidence"] = 1.2

    with pytest.raises(jsonschema.ValidationError):
        validate("event", content)


def test_a_reader_ignores_what_a_later_version_adds() -> None:
    content = encoded(event())
    content["data"]["mood"] = "later"

    validate("event", content)
    assert isinstance(
        messages.decode(MessageKind.EVENTS, json.dumps(content).encode()), payloads.EventMessage
    )


def test_decoding_words_clearances_and_rubbish() -> None:
    assert messages.decode(MessageKind.EMOTION, b"nobody") == "nobody"
    assert messages.decode(MessageKind.ALERT, b"") is None
    with pytest.raises(ValueError, match="JSON"):
        messages.decode(MessageKind.STATUS, b"{")


def test_no_payload_has_a_place_for_a_picture() -> None:
    text = json.dumps(schemas.documents()).lower()

    for word in ("base64", '"image"', '"crop"', 'embedding"', "contentencoding", "jpeg", "png"):
        assert word not in text


def test_the_schemas_in_the_repository_are_those_of_the_models(root: Path) -> None:
    folder = root / "schemas" / "v1"

    files = {path.name: json.loads(path.read_text("utf-8")) for path in folder.iterdir()}

    assert files == schemas.documents(), "run python -m fer_agent.mqtt.schemas schemas/v1"


def test_every_schema_is_a_valid_one_named_in_the_info_message() -> None:
    documents = schemas.documents()
    documents.pop("asyncapi.json")

    for document in documents.values():
        jsonschema.Draft202012Validator.check_schema(document)
    info = PAYLOADS["info"]
    assert isinstance(info, payloads.InfoPayload)
    assert {document["$id"] for document in documents.values()} == set(info.schemas)


def test_the_asyncapi_document_describes_every_channel() -> None:
    documents = schemas.documents()
    asyncapi = documents["asyncapi.json"]

    addresses = {channel["address"] for channel in asyncapi["channels"].values()}

    assert addresses == {
        str(Topic("{device}", kind, "{alert}" if kind is MessageKind.ALERT else "{camera}"))
        for kind in MessageKind
    }
    for name, operation in asyncapi["operations"].items():
        assert operation["channel"]["$ref"] == f"#/channels/{name}"
        assert name in asyncapi["channels"][name]["messages"]
    for channel in asyncapi["channels"].values():
        for message in channel["messages"].values():
            assert message["payload"].get("$ref", "asyncapi.json") in documents


def test_the_clock_says_whether_it_is_synchronised_and_reads_as_utc() -> None:
    assert clock_synced() in (True, False, None)
    reading = ClockReading.now()

    age_s = (now() - reading.wall(time.monotonic_ns())).total_seconds()

    assert abs(age_s) < 1
