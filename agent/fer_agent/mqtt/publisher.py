"""The MQTT publisher: events and retained state over one session that reconnects for ever.

`publish` and its like queue a message and return; a separate thread (`session.py`) sends it. An
event counts as delivered when the broker has confirmed it. Events that were in flight when a
connection broke are sent again on the next one, in the same order and with the same ids.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import Literal

from fer_agent.config.model import MqttConfig
from fer_agent.errors import AgentError
from fer_agent.mqtt.connection import Message, WakeupSocket
from fer_agent.mqtt.connector import Connector
from fer_agent.mqtt.messages import (
    Identity,
    MessageKind,
    Origin,
    Topic,
    dominant_emotion,
    parse_topic,
    state_payload,
)
from fer_agent.mqtt.outbox import QueuedEvent
from fer_agent.mqtt.payloads import (
    AlertPayload,
    CameraStatusPayload,
    HealthPayload,
    InfoPayload,
    OutboxHealth,
    StatusPayload,
)
from fer_agent.mqtt.retained import RetainedTopic
from fer_agent.mqtt.send_queue import SendQueue
from fer_agent.mqtt.session import MqttSession, SessionTiming
from fer_agent.mqtt.settings import BrokerSettings
from fer_agent.system.clock import ClockReading
from fer_agent.vision.records import CameraState, CameraStatus, EmotionEvent, EventKind

__all__ = ["CameraPublisher", "MqttPublisher", "SessionTiming"]

logger = logging.getLogger(__name__)

AgentState = Literal["starting", "online", "degraded", "stopped"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


class CameraPublisher:
    """The per-camera publisher, a `ports.Publisher`; `MqttPublisher.camera` makes it."""

    def __init__(self, origin: Origin, queue: SendQueue, on_status: Callable[[], None]) -> None:
        """Make the publisher of one camera.

        Args:
            origin: the source that its messages name.
            queue: takes the messages.
            on_status: called when the camera's status has changed.
        """
        self._origin = origin
        self._queue = queue
        self._on_status = on_status
        self._lock = threading.Lock()
        self._sequence = 0
        self._status: CameraStatus | None = None
        self._faces: dict[int, EmotionEvent] = {}
        self._watching = False
        state = RetainedTopic(self._topic(MessageKind.STATE), self._write_state)
        emotion = RetainedTopic(
            self._topic(MessageKind.EMOTION), self._write_emotion, only_changes=True
        )
        self._view = (state, emotion)

    @property
    def state(self) -> CameraState | None:
        """The camera's last state; None before the first."""
        return None if self._status is None else self._status.state

    def publish(self, event: EmotionEvent) -> None:
        """Accept one event and return at once; delivery happens on another thread."""
        with self._lock:
            self._sequence += 1
            if event.kind is EventKind.ENDED:
                self._faces.pop(event.track_id, None)
            else:
                self._faces[event.track_id] = event
            queued = QueuedEvent(event, self._origin, self._sequence, time.monotonic_ns())
            if self._watching:  # the queue has both topics already: 4 us instead of 10
                for retained in self._view:
                    retained.due = True
                self._queue.add(queued)
            else:
                self._queue.add(queued, *self._changed_view())

    def status(self, status: CameraStatus) -> None:
        """Publish whether the camera gives frames, and why not."""
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
            self._queue.put(RetainedTopic(self._topic(MessageKind.CAMERA_STATUS), write))
            if self._watching or status.state is CameraState.ONLINE:
                self._queue.put(*self._changed_view())
        self._on_status()

    def _topic(self, kind: MessageKind) -> Topic:
        return Topic(self._origin.identity.device_id, kind, self._origin.camera)

    def _changed_view(self) -> tuple[RetainedTopic, RetainedTopic]:
        """Make state and emotion due, and repeat them unless the camera is offline or disabled.

        The faces in view are unknown then, so the broker lets the last messages expire.
        """
        self._watching = True
        for retained in self._view:
            retained.due = True
            retained.repeats = self.state not in (CameraState.OFFLINE, CameraState.DISABLED)
        return self._view

    def _seen(self) -> list[EmotionEvent]:
        with self._lock:
            return list(self._faces.values())

    def _write_state(self, clock: ClockReading) -> bytes:
        now_ns = time.monotonic_ns()
        return state_payload(self._seen(), self._origin, now_ns=now_ns, clock=clock).encode()

    def _write_emotion(self, _clock: ClockReading) -> bytes:
        return dominant_emotion(self._seen()).encode()


class MqttPublisher:
    """The MQTT session of one agent, shared by its cameras."""

    def __init__(
        self,
        config: MqttConfig,
        identity: Identity,
        *,
        timing: SessionTiming | None = None,
    ) -> None:
        """Prepare the session; nothing is connected before `start`.

        Args:
            config: the broker; the files it names are read now.
            identity: the device and its session.
            timing: other times than the defaults.

        Raises:
            ConfigError: a password, certificate or CA file cannot be used.
        """
        timing = timing or SessionTiming()
        settings = BrokerSettings.load(config)
        self._identity = identity
        self._lock = threading.Lock()
        self._state: AgentState | None = None
        self._cameras: dict[str, CameraPublisher] = {}
        wakeup = WakeupSocket()
        self._queue = SendQueue(
            limit=config.outbox_events, repeat_s=timing.repeat_s, wake=wakeup.wake
        )
        client_id = f"fer-agent-{identity.device_id}"
        self._session = MqttSession(
            self._queue,
            Connector(settings, client_id, self._will(), timeout_s=timing.connect_s, wakeup=wakeup),
            wakeup,
            timing,
            subscriptions=(str(self._topic(MessageKind.ALERT, "+")),),
            on_message=self._received,
            on_stop=lambda: self._set_state("stopped"),
        )
        self._set_state("starting")

    def start(self) -> None:
        """Start connecting, and go on until `stop`, whether or not the broker is there."""
        self._session.start()

    def camera(self, name: str) -> CameraPublisher:
        """Return the publisher of a camera, the same one for the same name."""
        if name not in self._cameras:
            origin = Origin(self._identity, name)
            self._cameras[name] = CameraPublisher(origin, self._queue, self._update_state)
        return self._cameras[name]

    def info(self, payload: InfoPayload) -> None:
        """Publish what runs on this device."""
        topic = self._topic(MessageKind.INFO)
        self._queue.put(RetainedTopic(topic, lambda _clock: payload.encode()))

    def health(self, payload: HealthPayload) -> None:
        """Publish the health figures.

        Raises:
            AgentError: the session's thread has ended by a bug, so nothing is delivered any more.
        """
        self._queue.put(
            RetainedTopic(self._topic(MessageKind.HEALTH), lambda _clock: payload.encode())
        )
        if self._session.failure is not None:
            raise AgentError(
                f"the MQTT thread has ended: {self._session.failure!r}",
                remedy="restart the agent, and report this with its log",
            ) from self._session.failure

    def raise_alert(self, alert_id: str, text: str) -> None:
        """Publish a fault that stands until it is cleared.

        Args:
            alert_id: last part of the topic: small letters, digits and inner hyphens.
            text: the fault and its remedy, for people.

        Raises:
            ValueError: the id cannot stand in a topic.
        """
        since_ns = time.monotonic_ns()

        def write(clock: ClockReading) -> bytes:
            since = clock.wall(since_ns)
            return AlertPayload(text=text, session=self._identity.session, since=since).encode()

        self._queue.put(RetainedTopic(self._alert(alert_id), write))

    def clear_alert(self, alert_id: str) -> None:
        """Take a fault back; harmless when it was never raised.

        Raises:
            ValueError: the id cannot stand in a topic.
        """
        self._queue.put(RetainedTopic(self._alert(alert_id), _empty, clears=True))

    def stop(self) -> None:
        """Send the queue and `stopped`, disconnect, and return within `SessionTiming.stop_s`.

        Harmless when never started, or stopped before.
        """
        self._session.stop()
        if queued := self.counters().queued:
            logger.warning("%d events were not delivered before the stop", queued)

    def counters(self) -> OutboxHealth:
        """Return the counts of events so far."""
        return self._queue.counters()

    @property
    def reconnects(self) -> int:
        """The number of connections after the first."""
        return self._queue.reconnects

    @property
    def connected(self) -> bool:
        """True while a connection that the broker accepted is not known to have ended."""
        return self._session.connected

    def _topic(self, kind: MessageKind, name: str = "") -> Topic:
        return Topic(self._identity.device_id, kind, name)

    def _alert(self, alert_id: str) -> Topic:
        if not _NAME.fullmatch(alert_id):
            raise ValueError(f"{alert_id!r} is no id of small letters, digits and hyphens")
        return self._topic(MessageKind.ALERT, alert_id)

    def _will(self) -> Message:
        payload = StatusPayload(state="offline", session=self._identity.session, since=None)
        topic = str(self._topic(MessageKind.STATUS))
        return Message(topic, payload.encode(), qos=1, retain=True)

    def _update_state(self) -> None:
        """Set the agent's state by its cameras': one that is offline makes it degraded."""
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
            self._queue.put(RetainedTopic(self._topic(MessageKind.STATUS), write))

    def _received(self, message: Message) -> None:
        """Clear an alert that an earlier session left behind when it died."""
        topic = parse_topic(message.topic)
        if topic is None or topic.kind is not MessageKind.ALERT:
            return
        if message.retain and message.payload and topic not in self._queue:
            self._queue.put(RetainedTopic(topic, _empty, clears=True))


def _empty(_clock: ClockReading) -> bytes:
    return b""
