"""The live table of all devices, and each message as a plain line."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_agent.models.emotions import EMOTIONS, NOBODY, UNCERTAIN
from fer_agent.mqtt.messages import MessageKind
from fer_agent.mqtt.payloads import (
    AlertPayload,
    CameraStatusPayload,
    EventMessage,
    HealthPayload,
    InfoPayload,
    StatusPayload,
)
from fer_agent.watch.listener import ConnectionChange

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from fer_agent.mqtt.messages import Topic
    from fer_agent.mqtt.payloads import Payload
    from fer_agent.watch.listener import Arrival

_EVENTS_SHOWN = 10
_TRACKS_SHOWN = 8
_BAR_CELLS = 12

_EMOTION_COLOURS = ("red", "green", "magenta", "yellow", "white", "blue", "cyan", "dark_orange")
_COLOURS: dict[str, str] = {
    **dict(zip(EMOTIONS, _EMOTION_COLOURS, strict=True)),
    UNCERTAIN: "bright_black",
    NOBODY: "bright_black",
    "online": "green",
    "degraded": "yellow",
    "offline": "red",
}


@dataclass(slots=True)
class _Camera:
    status: CameraStatusPayload | None = None
    emotion: str = ""
    tracks: dict[str, EventMessage] = field(default_factory=dict)
    """The last event of each track of the session, oldest track first."""


@dataclass(slots=True)
class _Device:
    status: StatusPayload | None = None
    info: InfoPayload | None = None
    health: HealthPayload | None = None
    cameras: dict[str, _Camera] = field(default_factory=dict)
    alerts: dict[str, AlertPayload] = field(default_factory=dict)


class LiveTable:
    """The state of a broker's devices from their messages; may be drawn from another thread."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._lock = threading.Lock()
        self._broken = ""
        self._devices: dict[str, _Device] = {}
        self._events: deque[tuple[Topic, EventMessage]] = deque(maxlen=_EVENTS_SHOWN)
        self._ids: deque[str] = deque(maxlen=1000)

    def take(self, arrived: Arrival) -> str | None:
        """Update the state by one arrival.

        Returns:
            The arrival as a plain line; None for one without news, such as an event delivered
            twice or a heartbeat without a change.
        """
        with self._lock:
            text = self._take(arrived)
        return f"{time.strftime('%H:%M:%S')} {text}" if text else None

    def render(self) -> RenderableType:
        """Return the table as a rich renderable; may be called from any thread."""
        with self._lock:
            return self._render()

    def _take(self, arrived: Arrival) -> str:
        if isinstance(arrived, ConnectionChange):
            self._broken = "" if arrived.connected else arrived.text
            return arrived.text
        message = arrived.read()
        if message is None:
            return ""
        topic, payload = message
        device = self._devices.setdefault(topic.device_id, _Device())
        text = self._note(device, topic, payload)
        return f"{topic.device_id} {text}" if text else ""

    def _render(self) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415 - only a terminal needs rich

        parts: list[RenderableType] = [self._title]
        if self._broken:
            parts.append(f"[red]{_plain(self._broken)}[/]")
        if not self._devices:
            parts.append("[dim]waiting for a device[/]")
        for name, device in self._devices.items():
            parts += ["", _headline(name, device), "", _tracks_table(device)]
        parts += ["", self._events_table()]
        return Group(*parts)

    def _note(self, device: _Device, topic: Topic, payload: Payload | str | None) -> str:
        """Store a message; return it in words, empty when nothing changed."""
        if topic.kind is MessageKind.ALERT:
            return _note_alert(device, topic.name, payload)
        camera = device.cameras.setdefault(topic.name, _Camera()) if topic.name else _Camera()
        text = ""
        match payload:
            case StatusPayload():
                if device.status is None or device.status.state != payload.state:
                    text = f"is {payload.state}"
                device.status = payload
            case InfoPayload():
                device.info = payload
                text = f"runs fer-agent {payload.agent_version}, {payload.models.classifier.name}"
            case HealthPayload():
                device.health = payload
                text = _health_text(payload)
            case CameraStatusPayload():
                camera.status = payload
                reason = f": {payload.reason}" if payload.reason else ""
                text = f"camera {topic.name} is {payload.state.value}{reason}"
            case EventMessage() if payload.id not in self._ids:
                self._ids.append(payload.id)
                self._events.appendleft((topic, payload))
                _note_event(camera, payload)
                text = f"camera {topic.name} {_event_text(payload)}"
            case str() if payload != camera.emotion:
                camera.emotion = payload
                text = f"camera {topic.name} sees {payload}"
        return text

    def _events_table(self) -> Table:
        table = _new_table("Events received")
        for column in ("time", "camera", "track", "event", "emotion", "face", "after"):
            table.add_column(column)
        for topic, event in self._events:
            table.add_row(
                f"{event.time.astimezone():%H:%M:%S.%f}"[:-4],
                f"{topic.name}",
                event.subject,
                _kind(event),
                _emotion(event.data.emotion, event.data.confidence),
                f"{event.data.face_size_px} px",
                f"{event.data.duration_s:.1f} s",
                style="dim" if _kind(event) == "ended" else "",
            )
        return table


def _note_alert(device: _Device, name: str, payload: Payload | str | None) -> str:
    if isinstance(payload, AlertPayload):
        device.alerts[name] = payload
        return f"ALERT {name}: {payload.text}"
    return f"alert {name} is over" if device.alerts.pop(name, None) else ""


def _note_event(camera: _Camera, event: EventMessage) -> None:
    newest = next(reversed(camera.tracks.values()), None)
    if newest is not None and newest.data.session != event.data.session:
        camera.tracks.clear()
    camera.tracks[event.subject] = event
    while len(camera.tracks) > _TRACKS_SHOWN:
        del camera.tracks[next(iter(camera.tracks))]


def _event_text(event: EventMessage) -> str:
    data = event.data
    return (
        f"track {event.subject} {_kind(event)}: {data.emotion} {data.confidence:.0%}, "
        f"face {data.face_size_px} px, {data.duration_s:.1f} s"
    )


def _kind(event: EventMessage) -> str:
    return event.type.split(".")[2]


def _health_text(health: HealthPayload) -> str:
    parts = []
    if health.process_fps is not None:
        parts.append(f"{health.process_fps:.1f} fps")
    if (total := health.latency_ms.get("total")) is not None:
        parts.append(f"{total.p50:.0f} ms a frame (p95 {total.p95:.0f})")
    if health.memory_bytes is not None:
        parts.append(f"{health.memory_bytes / 1e6:.0f} MB")
    if health.temperature_c is not None:
        parts.append(f"{health.temperature_c:.0f} °C")
    if health.throttled:
        parts.append("throttled")
    return "health: " + (", ".join(parts) or "no figures yet")


def _headline(name: str, device: _Device) -> str:
    state = device.status.state if device.status else "?"
    lines = [f"[bold]{name}[/] [{_COLOURS.get(state, 'white')}]{state}[/]"]
    if device.info is not None:
        model = device.info.models.classifier
        lines[0] += f" · {_plain(model.name)} · context {_plain(device.info.deployment_context)}"
    if device.health is not None:
        lines.append(f"  {_health_text(device.health)}")
    if not _is_gone(device):  # else the cameras' last messages are out of date
        lines += [_camera_line(name, camera) for name, camera in device.cameras.items()]
    lines += [f"  [red]{_plain(alert.text)}[/]" for alert in device.alerts.values()]
    return "\n".join(lines)


def _is_gone(device: _Device) -> bool:
    return device.status is not None and device.status.state in {"stopped", "offline"}


def _camera_line(name: str, camera: _Camera) -> str:
    state, reason = "?", ""
    if camera.status is not None:
        state = camera.status.state.value
        reason = f" ({_plain(camera.status.reason)})" if camera.status.reason else ""
    sees = f" · sees {_emotion(camera.emotion or 'nobody')}" if state == "online" else ""
    return f"  camera {name} [{_COLOURS.get(state, 'white')}]{state}[/]{reason}{sees}"


def _tracks_table(device: _Device) -> Table:
    left = _is_gone(device)
    table = _new_table("Faces")
    for column in ("camera", "track", "emotion", "confidence", "there", "then"):
        table.add_column(column)
    for name, camera in device.cameras.items():
        for track, event in camera.tracks.items():
            data, gone = event.data, left or _kind(event) == "ended"
            others = sorted(data.probabilities.items(), key=lambda item: -item[1])[1:3]
            table.add_row(
                name,
                track,
                _emotion(data.emotion),
                _bar(data.confidence, data.emotion),
                f"{data.duration_s:.1f} s, gone" if gone else f"{data.duration_s:.1f} s",
                ", ".join(f"{label} {share:.0%}" for label, share in others),
                style="dim" if gone else "",
            )
    return table


def _new_table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - only a terminal needs rich
    from rich.table import Table  # noqa: PLC0415 - as above

    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _emotion(word: str, confidence: float | None = None) -> str:
    share = "" if confidence is None else f" {confidence:.0%}"
    return f"[{_COLOURS.get(word, 'white')}]{_plain(word)}[/]{share}"


def _bar(share: float, word: str) -> str:
    full = round(share * _BAR_CELLS)
    colour = _COLOURS.get(word, "white")
    return f"[{colour}]{'█' * full}[/][dim]{'░' * (_BAR_CELLS - full)}[/] {share:4.0%}"


def _plain(text: str) -> str:
    """Escape a device's text, as rich reads square brackets as markup."""
    return text.replace("[", r"\[")
