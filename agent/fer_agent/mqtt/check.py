"""The check behind `fer-agent mqtt test`: one message to the broker and back."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from paho.mqtt.reasoncodes import ReasonCode

from fer_agent.config.model import MqttConfig
from fer_agent.mqtt.connection import Connection, Message
from fer_agent.mqtt.connector import Connector
from fer_agent.mqtt.messages import root
from fer_agent.mqtt.settings import BrokerSettings

_CLIENT_ID_BYTES = 4
_PAYLOAD = b"fer-agent mqtt test"


@dataclass(frozen=True, slots=True)
class MqttReport:
    """The result of the check.

    Attributes:
        broker: its address.
        protocol: version of MQTT it accepted.
        tls: TLS version and cipher, or None without TLS.
        username: user name sent to the broker; empty for none.
        topic: topic of the message.
        connect_ms: from the first packet to the broker's CONNACK.
        round_trip_ms: from publishing to receiving the message; None when it did not return.
        problem: the fault, as one sentence; empty without one.
        remedy: the steps against the problem; empty without one.
    """

    broker: str
    protocol: str
    tls: str | None
    username: str
    topic: str
    connect_ms: float
    round_trip_ms: float | None
    problem: str = ""
    remedy: str = ""

    @property
    def authorised(self) -> bool:
        """True if this user may publish and subscribe under the device's topics."""
        return not self.problem

    def lines(self) -> list[str]:
        """Return the report for people, a finding a line."""
        lines = [
            f"broker      {self.broker}, MQTT {self.protocol}",
            f"TLS         {self.tls or 'none: others on the way can read and change everything'}",
            f"user        {self.username or 'none: whoever reaches the broker can read along'}",
            f"connected   in {self.connect_ms:.1f} ms",
        ]
        if self.round_trip_ms is not None:
            lines.append(f"round trip  {self.round_trip_ms:.1f} ms on {self.topic}")
        if self.problem:
            lines += [f"problem     {self.problem}", f"            {self.remedy}"]
        return lines


def check(config: MqttConfig, device_id: str, *, timeout_s: float = 5.0) -> MqttReport:
    """Connect, publish a message under the device's root and wait for it to come back.

    Args:
        config: the broker.
        device_id: the device whose topics to try.
        timeout_s: for connecting, and again for the message to return.

    Raises:
        ConfigError: a password, certificate or CA file cannot be used.
        CredentialsError: user, password or certificate refused.
        BrokerError: the broker cannot be reached, refuses, does not answer or hangs up.
    """
    settings = BrokerSettings.load(config)
    nonce = secrets.token_hex(_CLIENT_ID_BYTES)
    # Not the agent's own id: that would throw a running agent off the broker.
    connector = Connector(settings, f"fer-agent-{device_id}-test-{nonce}", timeout_s=timeout_s)
    begun = time.perf_counter()
    connection = connector.connect()
    connect_ms = (time.perf_counter() - begun) * 1e3
    try:
        round_trip = _RoundTrip(connection, f"{root(device_id)}/test/{nonce}")
        round_trip_ms = round_trip.run(timeout_s)
        topics = f"{root(device_id)}/#"
        remedy = f"let this user publish and subscribe under {topics} in the broker's ACL"
        return MqttReport(
            broker=str(settings),
            protocol=connection.version,
            tls=connection.peer_tls(),
            username=settings.username,
            topic=round_trip.topic,
            connect_ms=round(connect_ms, 2),
            round_trip_ms=None if round_trip_ms is None else round(round_trip_ms, 2),
            problem=round_trip.problem(timeout_s),
            remedy="" if round_trip_ms is not None else remedy,
        )
    finally:
        connection.close()


class _RoundTrip:
    """One message to the broker and back."""

    def __init__(self, connection: Connection, topic: str) -> None:
        self.topic = topic
        self._connection = connection
        self._refused: str | None = None
        self._confirmed = False
        self._returned = False
        connection.on_acknowledged = self._acknowledged
        connection.on_message = self._received

    def run(self, timeout_s: float) -> float | None:
        """Return milliseconds from publishing to receiving, or None."""
        # Brokers handle a client's packets in order, so the message finds the subscription.
        self._connection.subscribe(self.topic)
        begun = time.perf_counter()
        self._connection.publish(Message(self.topic, _PAYLOAD, qos=1, retain=False))
        while not self._returned and self._refused is None:
            left_s = begun + timeout_s - time.perf_counter()
            if left_s <= 0:
                return None
            self._connection.loop_once(left_s)
        return (time.perf_counter() - begun) * 1e3 if self._returned else None

    def problem(self, timeout_s: float) -> str:
        """Return the problem as one sentence; empty when the message came back."""
        if self._returned:
            return ""
        if self._refused is not None:
            return f"the broker refuses messages on {self.topic}: {self._refused}"
        if self._confirmed:
            return (
                f"the broker took the message on {self.topic} but did not send it back within "
                f"{timeout_s:g} s: publishing or subscribing is not permitted"
            )
        return f"the broker did not confirm the message on {self.topic} within {timeout_s:g} s"

    def _acknowledged(self, _number: int, fault: ReasonCode | None) -> None:
        self._confirmed = True
        self._refused = None if fault is None else str(fault)

    def _received(self, message: Message) -> None:
        self._returned = self._returned or message.payload == _PAYLOAD
