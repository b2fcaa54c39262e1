"""What a subscriber shows of the messages it received."""

from __future__ import annotations

from datetime import datetime, timezone
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from fer_agent.mqtt.messages import MessageKind, Topic, uuid7
from fer_agent.mqtt.payloads import (
    EVENT_DATA_SCHEMA,
    AlertPayload,
    CameraStatusPayload,
    EventData,
    EventMessage,
    HealthPayload,
    LatencyPayload,
    ModelRef,
    StatusPayload,
)
from fer_agent.vision.records import CameraState
from fer_agent.watch.listener import ConnectionChange, ReceivedMessage
from fer_agent.watch.table import LiveTable

SESSION = uuid7()
NOW = datetime(2025, 3, 1, 12, 0, 0, tzinfo=timezone.utc)


def message(kind: MessageKind, payload: bytes, name: str = "") -> ReceivedMessage:
    return ReceivedMessage(str(Topic("kitchen", kind, name)), payload)


def event(
    track: int, what: str = "started", *, session: str = SESSION, **data: Any
) -> ReceivedMessage:
    said = {
        "session": session,
        "mono_ns": 1,
        "clock_synced": True,
        "replayed": False,
        "model": ModelRef(name="m", sha256="0" * 64),
        "emotion": "happy",
        "confidence": 0.75,
        "probabilities": {"happy": 0.75, "sad": 0.2, "neutral": 0.05},
        "box": (0.1, 0.1, 0.4, 0.5),
        "face_size_px": 120,
        "duration_s": 1.5,
        **data,
    }
    made = EventMessage(
        specversion="1.0",
        id=uuid7(),
        source="/fer/kitchen/cameras/front",
        type=f"fer.track.{what}.v1",  # type: ignore[arg-type]  # pydantic checks it
        subject=str(track),
        time=NOW,
        recordedtime=NOW,
        sequence="0" * 16,
        datacontenttype="application/json",
        dataschema=EVENT_DATA_SCHEMA,
        data=EventData(**said),
    )
    return message(MessageKind.EVENTS, made.encode(), "front")


def drawn(table: LiveTable) -> str:
    console = Console(file=StringIO(), width=120, force_terminal=False)
    console.print(table.render())
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_an_event_is_a_line_and_a_row() -> None:
    table = LiveTable("a title")

    line = table.take(event(7))

    assert line is not None
    assert line.endswith("kitchen camera front track 7 started: happy 75%, face 120 px, 1.5 s")
    text = drawn(table)
    assert "a title" in text
    assert "happy" in text
    assert "sad 20%, neutral 5%" in text


def test_an_event_delivered_twice_counts_once() -> None:
    table, twice = LiveTable(""), event(1)

    assert table.take(twice) is not None
    assert table.take(twice) is None
    assert drawn(table).count("started") == 1


def test_a_track_keeps_one_row_with_its_last_event() -> None:
    table = LiveTable("")
    table.take(event(3, "started", emotion="sad"))
    table.take(event(3, "ended", emotion="surprise", duration_s=8.25))

    rows = [row for row in drawn(table).splitlines() if "gone" in row]

    assert len(rows) == 1
    assert "surprise" in rows[0]
    assert "8.2 s, gone" in rows[0]


def test_a_new_session_starts_with_new_tracks() -> None:
    table = LiveTable("")
    table.take(event(41, face_size_px=99))
    table.take(event(1, session=uuid7()))

    faces = drawn(table).partition("Events received")[0]

    assert " 41 " not in faces
    assert " 1 " in faces


def test_only_the_newest_tracks_and_events_stay() -> None:
    table = LiveTable("")
    for track in range(100, 150):
        table.take(event(track))

    faces, _, events = drawn(table).partition("Events received")

    assert [word for word in faces.split() if word.isdecimal()] == [
        str(track) for track in range(142, 150)
    ]
    assert "149" in events
    assert "139" not in events


def test_states_and_words_are_told_once() -> None:
    table = LiveTable("")
    status = StatusPayload(state="online", session=SESSION, since=NOW).encode()
    camera = CameraStatusPayload(
        state=CameraState.OFFLINE, reason="no cable [at all]", since=NOW
    ).encode()

    lines = [
        table.take(message(MessageKind.STATUS, status)),
        table.take(message(MessageKind.STATUS, status)),
        table.take(message(MessageKind.CAMERA_STATUS, camera, "front")),
        table.take(message(MessageKind.EMOTION, b"sad", "front")),
        table.take(message(MessageKind.EMOTION, b"sad", "front")),
    ]

    said = [line and line.partition("kitchen ")[2] for line in lines]
    assert said == [
        "is online",
        None,
        "camera front is offline: no cable [at all]",
        "camera front sees sad",
        None,
    ]
    text = drawn(table)
    assert "kitchen online" in text
    assert "camera front offline (no cable [at all])" in text


def test_a_camera_sees_somebody_only_while_it_and_its_device_are_there() -> None:
    table = LiveTable("")

    def tell(kind: MessageKind, state: str, name: str = "", **more: Any) -> str:
        said = CameraStatusPayload if name else StatusPayload
        table.take(message(kind, said(state=state, since=NOW, **more).encode(), name))
        return drawn(table)

    table.take(message(MessageKind.EMOTION, b"happy", "front"))
    assert "online · sees happy" in tell(
        MessageKind.CAMERA_STATUS, CameraState.ONLINE, "front", reason=""
    )
    offline = tell(MessageKind.CAMERA_STATUS, CameraState.OFFLINE, "front", reason="unplugged")
    assert "camera front offline (unplugged)" in offline
    assert "sees" not in offline
    assert "camera front" not in tell(MessageKind.STATUS, "stopped", session=SESSION)


def test_health_shows_what_is_known_and_nothing_else() -> None:
    table = LiveTable("")
    health = HealthPayload(
        session=SESSION,
        time=NOW,
        uptime_s=3,
        process_fps=19.96,
        latency_ms={"total": LatencyPayload(p50=7.4, p95=9.6, p99=20)},
        temperature_c=71.4,
        throttled=True,
    )

    line = table.take(message(MessageKind.HEALTH, health.encode()))

    assert line is not None
    assert line.endswith("health: 20.0 fps, 7 ms a frame (p95 10), 71 °C, throttled")


def test_an_alert_stands_until_it_is_cleared() -> None:
    table = LiveTable("")
    alert = AlertPayload(text="the disk is full", session=SESSION, since=NOW)

    assert "ALERT disk: the disk is full" in (
        table.take(message(MessageKind.ALERT, alert.encode(), "disk")) or ""
    )
    assert "the disk is full" in drawn(table)
    assert "alert disk is over" in (table.take(message(MessageKind.ALERT, b"", "disk")) or "")
    assert "the disk is full" not in drawn(table)


def test_a_lost_link_is_shown_until_it_is_back() -> None:
    table = LiveTable("")
    table.take(ConnectionChange(connected=False, text="the connection is lost"))
    assert "the connection is lost" in drawn(table)

    table.take(ConnectionChange(connected=True, text="listening again"))
    assert "the connection is lost" not in drawn(table)


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("fer/v1/kitchen/status", b"not json"),
        ("fer/v1/kitchen/status", b'{"state": "dancing"}'),
        ("fer/v1/kitchen/cameras/front/emotion", b"\xff\xfe"),
        ("fer/v1/kitchen/something/else", b"1"),
        ("another/root", b"1"),
    ],
)
def test_what_is_not_ours_is_left_out(topic: str, payload: bytes) -> None:
    table = LiveTable("")

    assert table.take(ReceivedMessage(topic, payload)) is None
    assert "waiting for a device" in drawn(table)
