"""The thread that holds the MQTT session: it connects, sends the queue, and reconnects."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from paho.mqtt.reasoncodes import ReasonCode
from pydantic import ValidationError

from fer_agent.errors import AgentError, BrokerError, CredentialsError
from fer_agent.mqtt.connection import Connection, Message, TakenOverError, WakeupSocket
from fer_agent.mqtt.connector import Connector
from fer_agent.mqtt.messages import CHANNELS, MessageKind, Topic, event_message
from fer_agent.mqtt.outbox import QueuedEvent
from fer_agent.mqtt.retained import RetainedTopic
from fer_agent.mqtt.send_queue import SendQueue
from fer_agent.system.backoff import Backoff
from fer_agent.system.clock import ClockReading

logger = logging.getLogger(__name__)

_STOP_MESSAGE_SHARE = 1 / 3
"""Part of the time for stopping that is kept for the stop message, after the events."""


@dataclass(frozen=True, slots=True)
class SessionTiming:
    """The times of the session, in seconds.

    Attributes:
        repeat_s: between two sendings of an unchanged state; a third of its expiry.
        first_wait_s: before the second attempt to connect; doubles from there.
        longest_wait_s: most between two attempts.
        stable_s: a connection that lasted so long resets the doubling.
        connect_s: for the transport and for the broker's answer, each.
        stop_s: for the last events and the stop message.
    """

    repeat_s: float = 20.0
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    stable_s: float = 60.0
    connect_s: float = 5.0
    stop_s: float = 3.0


class MqttSession:
    """The thread that sends the queue's content to the broker until stopped."""

    def __init__(
        self,
        queue: SendQueue,
        connector: Connector,
        wakeup: WakeupSocket,
        timing: SessionTiming,
        *,
        subscriptions: tuple[str, ...],
        on_message: Callable[[Message], None],
        on_stop: Callable[[], None],
    ) -> None:
        """Prepare the thread; nothing is connected before `start`.

        Args:
            queue: the messages to send.
            connector: opens connections.
            wakeup: interrupts waiting when the queue has something new.
            timing: times of the session.
            subscriptions: topics to subscribe to on each connection.
            on_message: called with each message received, on this thread.
            on_stop: queues the stop message; called once the events are sent or time is up.
        """
        self._queue = queue
        self._connector = connector
        self._wakeup = wakeup
        self._timing = timing
        self._subscriptions = subscriptions
        self._on_message = on_message
        self._on_stop = on_stop
        self._backoff = Backoff(first_s=timing.first_wait_s, longest_s=timing.longest_wait_s)
        self._thread = threading.Thread(target=self._run, name="mqtt-publisher", daemon=True)
        self._deadline = math.inf
        self._stopping = threading.Event()
        self._connected_ns: int | None = None
        self._sent: dict[int, RetainedTopic | QueuedEvent] = {}
        self._faults: Counter[str] = Counter()
        self.failure: Exception | None = None
        """The bug that ended the thread; None while there is none."""

    @property
    def connected(self) -> bool:
        """True while a connection that the broker accepted is not known to have ended."""
        return self._connected_ns is not None

    def start(self) -> None:
        """Start connecting, and go on until `stop`, whether or not the broker is there."""
        self._thread.start()

    def stop(self) -> None:
        """Send the queue and the stop message, disconnect, and return within `stop_s`."""
        if self._stopping.is_set():
            return
        self._deadline = time.monotonic() + self._timing.stop_s
        self._stopping.set()
        if self._thread.ident is None:
            self._wakeup.close()
            return
        self._wakeup.wake()
        self._thread.join(self._timing.stop_s + 0.2)
        if self._thread.is_alive():
            logger.debug("the thread is still inside an attempt to connect and ends with it")

    def _run(self) -> None:
        try:
            self._keep_connected()
        except Exception as error:
            logger.exception("the MQTT thread ended by a bug")
            self.failure = error
        finally:
            self._wakeup.close()

    def _keep_connected(self) -> None:
        while self._left_s() > 0:
            last_attempt = self._stopping.is_set()
            try:
                self._hold_connection()
            except (BrokerError, CredentialsError) as error:
                wait_s = self._disconnected(error)
                if last_attempt:
                    return
                # A new event is no reason to try sooner, and must not cost its sender a wake-up.
                self._stopping.wait(wait_s)
            else:
                return

    def _hold_connection(self) -> None:
        """Connect and send; return once the stop message is through, raise when it broke."""
        connection = self._connector.connect(lambda: self._deadline)
        self._connected_ns = time.monotonic_ns()
        try:
            self._begin(connection)
            self._serve(connection)
        except BaseException:
            connection.abort()
            raise
        connection.close()
        self._connected_ns = None

    def _begin(self, connection: Connection) -> None:
        flapping = any(count > 1 for count in self._faults.values())
        logger.log(
            logging.DEBUG if flapping else logging.INFO,
            "connected%s to the broker with MQTT %s",
            " again" if self._faults else "",
            connection.version,
        )
        self._sent.clear()
        connection.on_acknowledged = self._acknowledged
        connection.on_message = self._on_message
        self._queue.connected()
        for topic in self._subscriptions:
            connection.subscribe(topic)

    def _serve(self, connection: Connection) -> None:
        stop_message_sent = False
        while True:
            self._send(connection)
            wait_s = self._queue.wait_s()
            if self._stopping.is_set():
                wait_s = self._left_s()
                if not stop_message_sent:
                    wait_s -= self._timing.stop_s * _STOP_MESSAGE_SHARE
                if not self._sent or wait_s <= 0:
                    if stop_message_sent:
                        return
                    stop_message_sent = True
                    self._on_stop()
                    continue
            connection.loop_once(wait_s)

    def _send(self, connection: Connection) -> None:
        while len(self._sent) < connection.window and (item := self._queue.take()) is not None:
            try:
                message = self._message(item)
            except ValidationError:
                # A label or a number that the contract does not know: a bug, but no other event
                # should be lost for it.
                logger.exception("left out a message that breaks the contract")
                self._queue.reject(item)
                continue
            if message is None:
                continue
            number = connection.publish(message)
            if message.qos:
                self._sent[number] = item

    def _message(self, item: RetainedTopic | QueuedEvent) -> Message | None:
        clock = ClockReading.now()
        if isinstance(item, QueuedEvent):
            origin = item.origin
            topic = Topic(origin.identity.device_id, MessageKind.EVENTS, origin.camera)
            return _addressed(topic, self._event_payload(item, clock))
        payload = item.write(clock)
        if item.only_changes and payload == item.last:
            return None
        item.last = payload
        return _addressed(item.topic, payload)

    def _event_payload(self, queued: QueuedEvent, clock: ClockReading) -> bytes:
        if queued.message is None:
            queued.message = event_message(
                queued.event,
                queued.origin,
                sequence=queued.sequence,
                recorded_ns=queued.recorded_ns,
                clock=clock,
                replayed=queued.recorded_ns < (self._connected_ns or 0),
            )
        else:
            queued.message = queued.message.again()
        return queued.message.encode()

    def _acknowledged(self, number: int, fault: ReasonCode | None) -> None:
        item = self._sent.pop(number, None)
        if item is None:  # a message of QoS 0 has been written
            return
        if fault is None:
            self._queue.confirm(item)
            return
        self._queue.reject(item)
        self._report(
            f"the broker refused a message: {fault}",
            "let this user publish under the device's topics, in the broker's access list",
        )

    def _disconnected(self, error: AgentError) -> float:
        """Note that the connection ended or failed; return seconds until the next attempt."""
        connected_ns, self._connected_ns = self._connected_ns, None
        if connected_ns and time.monotonic_ns() - connected_ns >= self._timing.stable_s * 1e9:
            self._faults.clear()
            self._backoff.reset()
        self._report(str(error), error.remedy)
        hopeless = isinstance(error, (CredentialsError, TakenOverError))
        return self._backoff.next_s(hopeless=hopeless)

    def _report(self, fault: str, remedy: str) -> None:
        """Log a fault as a warning the first time and for debugging from then on."""
        self._faults[fault] += 1
        if self._faults[fault] == 1:
            logger.warning("%s; %s; trying on", fault, remedy)
        else:
            logger.debug("%s (%d times)", fault, self._faults[fault])

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()


def _addressed(topic: Topic, payload: bytes) -> Message:
    channel = CHANNELS[topic.kind]
    return Message(
        topic=str(topic),
        payload=payload,
        qos=channel.qos,
        retain=channel.retain,
        # A clearing message must not expire before the broker has cleared.
        expiry_s=channel.expiry_s if payload else None,
        content_type=channel.content_type if payload else None,
    )
