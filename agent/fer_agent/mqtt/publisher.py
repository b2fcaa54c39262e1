"""The agent's voice: events and retained state over one MQTT session that never gives up.

`publish` and its kin note something down and return; a thread of its own (`courier.py`) talks. An
event counts as delivered when the broker has confirmed it. What was under way when a link broke is
sent again on the next one, in the same order and with the same ids.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Literal

from fer_agent.errors import AgentError
from fer_agent.mqtt.courier import Courier, Timing
from fer_agent.mqtt.dialer import Dialer
from fer_agent.mqtt.link import Waker, Will
from fer_agent.mqtt.mailroom import Counters, Mailroom
from fer_agent.mqtt.messages import (
    Kind,
    Origin,
    Topic,
    dominant_emotion,
    parse_topic,
    state_payload,
)
from fer_agent.mqtt.outbox import Entry
from fer_agent.mqtt.payloads import AlertPayload, CameraStatusPayload, StatusPayload
from fer_agent.mqtt.retained import Slot
from fer_agent.mqtt.settings import BrokerSettings
from fer_agent.vision.records import CameraState, EmotionEvent, EventKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.config.model import MqttConfig
    from fer_agent.mqtt.link import Message
    from fer_agent.mqtt.messages import Identity
    from fer_agent.mqtt.payloads import HealthPayload, InfoPayload
    from fer_agent.system.clock import ClockReading
    from fer_agent.vision.records import CameraStatus

__all__ = ["CameraPublisher", "Counters", "MqttPublisher", "Timing"]

logger = logging.getLogger(__name__)

AgentState = Literal["starting", "online", "degraded", "stopped"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class CameraPublisher:
    """One camera's voice; satisfies `ports.Publisher`. `MqttPublisher.camera` makes it."""

    def __init__(self, origin: Origin, mailroom: Mailroom, on_status: Callable[[], None]) -> None:
        """Make the voice of one camera.

        Args:
            origin: what its messages name as their source.
            mailroom: where messages are put.
            on_status: called when the camera's status has changed.
        """
        self._origin = origin
        self._mailroom = mailroom
        self._on_status = on_status
        self._lock = threading.Lock()
        self._sequence = 0
        self._status: CameraStatus | None = None
        self._faces: dict[int, EmotionEvent] = {}
        self._watching = False
        state = Slot(self._topic(Kind.STATE), self._write_state)
        word = Slot(self._topic(Kind.EMOTION), self._write_word, only_changes=True)
        self._view = (state, word)

    @property
    def state(self) -> CameraState | None:
        """The camera's state as last told; None before."""
        return None if self._status is None else self._status.state

    def publish(self, event: EmotionEvent) -> None:
        """Accept one event and return at once; delivery happens on another thread."""
        with self._lock:
            self._sequence += 1
            if event.kind is EventKind.ENDED:
                self._faces.pop(event.track_id, None)
            else:
                self._faces[event.track_id] = event
            entry = Entry(event, self._origin, self._sequence, time.monotonic_ns())
            if self._watching:  # the board has both slots already
                for slot in self._view:
                    slot.due = True
                self._mailroom.add(entry)
            else:
                self._mailroom.add(entry, *self._changed_view())

    def status(self, status: CameraStatus) -> None:
        """Tell whether the camera gives frames, and why not."""
        since_ns = time.monotonic_ns()

        def write(clock: ClockReading) -> bytes:
            since = clock.wall(since_ns)
            return CameraStatusPayload(
                state=status.state, reason=status.reason, since=since
            ).encode()

        with self._lock:
            if status == self._status:
                return
            self._status = status
            self._mailroom.put(Slot(self._topic(Kind.CAMERA_STATUS), write))
            if self._watching or status.state is CameraState.ONLINE:
                self._mailroom.put(*self._changed_view())
        self._on_status()

    def _topic(self, kind: Kind) -> Topic:
        return Topic(self._origin.identity.device_id, kind, self._origin.camera)

    def _changed_view(self) -> tuple[Slot, Slot]:
        """Make state and word due, and repeat them while the camera is not known to be lost.

        Who is there while the camera is offline is not known: nothing is affirmed then, and the
        broker lets the last words expire.
        """
        self._watching = True
        for slot in self._view:
            slot.due = True
            slot.repeats = self.state not in (CameraState.OFFLINE, CameraState.DISABLED)
        return self._view

    def _seen(self) -> list[EmotionEvent]:
        with self._lock:
            return list(self._faces.values())

    def _write_state(self, clock: ClockReading) -> bytes:
        now_ns = time.monotonic_ns()
        return state_payload(self._seen(), self._origin, now_ns=now_ns, clock=clock).encode()

    def _write_word(self, _clock: ClockReading) -> bytes:
        return dominant_emotion(self._seen()).encode()


class MqttPublisher:
    """The MQTT session of one agent, shared by its cameras."""

    def __init__(
        self,
        config: MqttConfig,
        identity: Identity,
        *,
        timing: Timing | None = None,
    ) -> None:
        """Prepare the session; nothing is connected before `start`.

        Args:
            config: the broker; the files it names are read now.
            identity: who speaks.
            timing: other times than the usual ones.

        Raises:
            ConfigError: a password, certificate or CA file cannot be used.
        """
        timing = timing or Timing()
        settings = BrokerSettings.load(config)
        self._identity = identity
        self._lock = threading.Lock()
        self._state: AgentState | None = None
        self._cameras: dict[str, CameraPublisher] = {}
        waker = Waker()
        self._mailroom = Mailroom(
            limit=config.outbox_events, repeat_s=timing.repeat_s, wake=waker.wake
        )
        client_id = f"fer-agent-{identity.device_id}"
        self._courier = Courier(
            self._mailroom,
            Dialer(settings, client_id, self._will(), timing.connect_s),
            waker,
            timing,
            subscriptions=(str(self._topic(Kind.ALERT, "+")),),
            on_message=self._received,
            farewell=lambda: self._set_state("stopped"),
        )
        self._set_state("starting")

    def start(self) -> None:
        """Begin to connect, and go on until `stop`, whether or not the broker is there."""
        self._courier.start()

    def camera(self, name: str) -> CameraPublisher:
        """Return the voice of the camera of that name, the same one for the same name."""
        if name not in self._cameras:
            origin = Origin(self._identity, name)
            self._cameras[name] = CameraPublisher(origin, self._mailroom, self._reconsider)
        return self._cameras[name]

    def info(self, payload: InfoPayload) -> None:
        """Publish what runs on this device."""
        self._mailroom.put(Slot(self._topic(Kind.INFO), lambda _clock: payload.encode()))

    def health(self, payload: HealthPayload) -> None:
        """Publish the health figures.

        Raises:
            AgentError: the session's thread has ended by a bug, so nothing is delivered any more.
        """
        self._mailroom.put(Slot(self._topic(Kind.HEALTH), lambda _clock: payload.encode()))
        if self._courier.failure is not None:
            raise AgentError(
                f"the MQTT thread has ended: {self._courier.failure!r}",
                remedy="restart the agent, and report this with its log",
            ) from self._courier.failure

    def raise_alert(self, alert_id: str, text: str) -> None:
        """Publish a fault that stands until it is cleared.

        Args:
            alert_id: last part of the topic: small letters, digits and inner hyphens.
            text: what is wrong and what to do, for people.

        Raises:
            ValueError: the id cannot stand in a topic.
        """
        since_ns = time.monotonic_ns()

        def write(clock: ClockReading) -> bytes:
            since = clock.wall(since_ns)
            return AlertPayload(text=text, session=self._identity.session, since=since).encode()

        self._mailroom.put(Slot(self._alert(alert_id), write))

    def clear_alert(self, alert_id: str) -> None:
        """Take a fault back; harmless when it was never raised.

        Raises:
            ValueError: the id cannot stand in a topic.
        """
        self._mailroom.put(Slot(self._alert(alert_id), _nothing, clears=True))

    def stop(self) -> None:
        """Send what waits, say `stopped` and hang up; returns after `Timing.stop_s` at the latest.

        Harmless when never started, or stopped before.
        """
        self._courier.stop()
        if queued := self.counters().queued:
            logger.warning("%d events were not delivered before the stop", queued)

    def counters(self) -> Counters:
        """Return what was counted so far."""
        return self._mailroom.counters()

    @property
    def connected(self) -> bool:
        """Whether the broker has let us in and the link still stands, as far as known."""
        return self._courier.connected

    def _topic(self, kind: Kind, name: str = "") -> Topic:
        return Topic(self._identity.device_id, kind, name)

    def _alert(self, alert_id: str) -> Topic:
        if not _NAME.fullmatch(alert_id):
            raise ValueError(f"{alert_id!r} is no id of small letters, digits and hyphens")
        return self._topic(Kind.ALERT, alert_id)

    def _will(self) -> Will:
        payload = StatusPayload(state="offline", session=self._identity.session, since=None)
        return Will(str(self._topic(Kind.STATUS)), payload.encode())

    def _reconsider(self) -> None:
        """Derive the agent's state from its cameras': the first offline one degrades it."""
        states = [camera.state for camera in list(self._cameras.values())]
        if CameraState.OFFLINE in states:
            self._set_state("degraded")
        elif None not in states:
            self._set_state("online")

    def _set_state(self, state: AgentState) -> None:
        since_ns = time.monotonic_ns()

        def write(clock: ClockReading) -> bytes:
            since, session = clock.wall(since_ns), self._identity.session
            return StatusPayload(state=state, session=session, since=since).encode()

        with self._lock:
            if self._state in (state, "stopped"):
                return
            self._state = state
            self._mailroom.put(Slot(self._topic(Kind.STATUS), write))

    def _received(self, message: Message) -> None:
        """Clear an alert that an earlier session left standing when it died."""
        topic = parse_topic(message.topic)
        if topic is None or topic.kind is not Kind.ALERT:
            return
        if message.retain and message.payload and topic not in self._mailroom:
            self._mailroom.put(Slot(topic, _nothing, clears=True))


def _nothing(_clock: ClockReading) -> bytes:
    return b""
