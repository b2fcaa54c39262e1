"""The subscriber to all messages below `fer/v1/`, from any number of devices."""

from __future__ import annotations

import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, TypeAlias

from fer_agent.config.model import MqttConfig
from fer_agent.errors import BrokerError, CredentialsError
from fer_agent.mqtt.connection import Connection, Message, WakeupSocket
from fer_agent.mqtt.connector import Connector
from fer_agent.mqtt.messages import Topic, decode, parse_topic
from fer_agent.mqtt.payloads import EventMessage, Payload
from fer_agent.mqtt.settings import BrokerSettings
from fer_agent.system.backoff import Backoff

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1
EVERYTHING: Final = "fer/v1/+/#"

_STABLE_S: Final = 60.0
"""A connection that lasted so long resets the doubling of the waits."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message as it came from the broker.

    Attributes:
        topic: whole topic.
        payload: bytes; empty for a retained message that was cleared.
        retained: whether the broker had retained it.
    """

    topic: str
    payload: bytes
    retained: bool = False

    def read(self) -> tuple[Topic, Payload | str | None] | None:
        """Return topic and payload; the payload is None where the message was cleared.

        The result is None for a message outside the contract or against it.
        """
        topic = parse_topic(self.topic)
        if topic is None:
            return None
        try:
            return topic, decode(topic.kind, self.payload)
        except ValueError as error:
            logger.debug("cannot read %s: %s", self.topic, error)
            return None

    def event(self) -> EventMessage | None:
        """Return the event, if this is one."""
        _, payload = self.read() or (None, None)
        return payload if isinstance(payload, EventMessage) else None

    def as_json(self) -> str:
        """Return one line of JSON: schema_version, topic, retained and payload.

        A payload that is no JSON becomes text, an empty one null.
        """
        try:
            content = json.loads(self.payload) if self.payload else None
        except ValueError:
            content = self.payload.decode("utf-8", "replace")
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "topic": self.topic,
                "retained": self.retained,
                "payload": content,
            },
            ensure_ascii=False,
        )


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """A change of the connection to the broker.

    Attributes:
        connected: whether the broker is connected now.
        text: one plain sentence.
    """

    connected: bool
    text: str


Arrival: TypeAlias = ReceivedMessage | ConnectionChange


class Watcher:
    """A subscription to every agent of a broker, kept up until closed.

    `connect` starts the thread `mqtt-watch`, which queues messages for `arrivals` and `next`.
    """

    def __init__(self, config: MqttConfig, *, first_wait_s: float = 1.0) -> None:
        """Prepare a subscription.

        Args:
            config: the broker; its files are read now.
            first_wait_s: before the first attempt to connect again; doubles from there.

        Raises:
            ConfigError: a password, certificate or CA file cannot be used.
        """
        self._settings = BrokerSettings.load(config)
        self._wakeup = WakeupSocket()
        self._connector = Connector(
            self._settings, f"fer-watch-{secrets.token_hex(4)}", wakeup=self._wakeup
        )
        self._backoff = Backoff(first_s=first_wait_s, longest_s=30.0)
        self._arrived: SimpleQueue[Arrival | None] = SimpleQueue()
        self._closing = False
        self._thread: threading.Thread | None = None

    def connect(self) -> None:
        """Connect and subscribe; MQTT 5, or 3.1.1 where the broker refuses 5.

        Raises:
            BrokerError: the broker does not answer, or refuses the connection.
            CredentialsError: the broker refuses the user name or password.
        """
        connection = self._connect()
        self._report(connected=True, text=f"listening at {self._settings}")
        self._thread = threading.Thread(
            target=self._run, args=(connection,), name="mqtt-watch", daemon=True
        )
        self._thread.start()

    def arrivals(self) -> Iterator[Arrival]:
        """Yield messages and changes of the connection until `stop`; reconnects by itself."""
        while (arrived := self._arrived.get()) is not None:
            yield arrived

    def next(self, timeout_s: float) -> Arrival | None:
        """Return the next arrival, None when nothing came in time or after `stop`."""
        try:
            return self._arrived.get(timeout=timeout_s)
        except Empty:
            return None

    def stop(self) -> None:
        """End `arrivals`, from any thread or a signal handler; returns at once."""
        self._arrived.put(None)

    def close(self) -> None:
        """Disconnect and end the thread; harmless when never connected."""
        self._closing = True
        self._wakeup.wake()
        if self._thread is not None:
            self._thread.join()
        self._wakeup.close()

    def _run(self, connection: Connection) -> None:
        try:
            self._listen(connection)
        finally:
            self._arrived.put(None)  # ends `arrivals`, for any end of the thread

    def _listen(self, connection: Connection | None) -> None:
        connected_s = time.monotonic()
        while connection is not None:
            try:
                while not self._closing:
                    connection.loop_once(1.0)
                break
            except (BrokerError, CredentialsError) as error:
                connection.close()
                self._report(connected=False, text=f"{error}; trying again")
                if time.monotonic() - connected_s >= _STABLE_S:
                    self._backoff.reset()
                connection = self._connect_again()
                connected_s = time.monotonic()
        if connection is not None:
            connection.close()

    def _connect_again(self) -> Connection | None:
        """Connect, with retries; return None once closed."""
        while not self._closing:
            self._wakeup.wait(self._backoff.next_s())
            try:
                connection = self._connect()
            except (BrokerError, CredentialsError) as error:
                logger.debug("still no broker: %s", error)
            else:
                self._report(connected=True, text=f"listening again at {self._settings}")
                return connection
        return None

    def _connect(self) -> Connection:
        connection = self._connector.connect(lambda: 0.0 if self._closing else math.inf)
        connection.on_message = self._on_message
        try:
            connection.subscribe(EVERYTHING)
        except BrokerError:
            connection.close()
            raise
        return connection

    def _report(self, *, connected: bool, text: str) -> None:
        self._arrived.put(ConnectionChange(connected=connected, text=text))

    def _on_message(self, message: Message) -> None:
        self._arrived.put(ReceivedMessage(message.topic, message.payload, message.retain))
