"""One MQTT connection, from CONNECT to its end.

paho parses the protocol; this module does the waiting, so that one thread opens a connection, runs
its loop and closes it. A connection is never opened twice: the caller sends the messages that were
unconfirmed when it broke again, in its own order.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fer_agent.errors import BrokerError, CredentialsError
from fer_agent.mqtt.settings import BrokerSettings

Version = Literal["5", "3.1.1"]

_UNSUPPORTED_VERSION = 0x84
_CREDENTIALS_REFUSED = (0x86, 0x87, 0x8A, 0x8C)
"""Bad user name or password, not authorized, banned, bad authentication method."""
_TAKEN_OVER = 0x8E
_FAILURE = 0x80
"""Reason codes from here on are failures. Source for all: MQTT 5, section 2.4."""

_WINDOW = 20
"""Most unconfirmed messages at once; mosquitto's own default, and paho's."""

_GATHER_S = 0.005
"""After a wake-up, to gather the messages right behind it: a wake-up costs the pipeline's thread
more than the rest of publishing does, and while one is pending there is no other.
"""


class VersionRefusedError(BrokerError):
    """The broker does not speak this version of MQTT, or did not answer and gave no reason.

    Attributes:
        certain: whether the broker gave this reason.
    """

    def __init__(self, message: str, *, remedy: str, certain: bool) -> None:
        super().__init__(message, remedy=remedy)
        self.certain = certain


class TakenOverError(BrokerError):
    """Another client with the same id has connected."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish, or one received (which has no expiry and no content type)."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    expiry_s: int | None = None
    content_type: str | None = None


class WakeupSocket:
    """A pair of sockets by which other threads interrupt a wait on sockets (a self-pipe)."""

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.settimeout(0)
        self._sender.settimeout(0)
        self._pending = False

    def wake(self) -> None:
        """End the current or else the next wait; any thread may call it, also after `close`."""
        if self._pending:
            return
        self._pending = True
        # A full buffer wakes as well as one more byte, and no thread waits on a closed one.
        with contextlib.suppress(OSError):
            self._sender.send(b"\0")

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._receiver.fileno()

    def wait(self, timeout_s: float) -> None:
        """Wait until woken, at most `timeout_s`."""
        select.select([self], [], [], max(0.0, timeout_s))
        self.drain()

    def drain(self) -> None:
        """Forget all wake-ups so far; the caller looks for their cause after this."""
        self._pending = False
        with contextlib.suppress(BlockingIOError):
            while self._receiver.recv(4096):
                pass

    def close(self) -> None:
        """Close both sockets."""
        self._receiver.close()
        self._sender.close()


class Connection:
    """One connection, used only by the thread that opened it."""

    def __init__(
        self,
        settings: BrokerSettings,
        version: Version,
        client_id: str,
        will: Message | None,
        wakeup: WakeupSocket | None,
    ) -> None:
        """Prepare a connection; `open` makes it, and `wakeup` interrupts its waiting.

        The broker publishes `will` when the client is lost.
        """
        self.version = version
        self.window = _WINDOW
        self.on_acknowledged: Callable[[int, ReasonCode | None], None] = lambda _mid, _fault: None
        """Called with each message's number, and the reason when the broker did not take it."""
        self.on_message: Callable[[Message], None] = lambda _message: None
        """Called with each message received."""
        self._settings = settings
        self._wakeup = wakeup
        self._connected = False
        self._fault: BrokerError | CredentialsError | None = None
        five = version == "5"
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
            clean_session=None if five else True,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages = 0  # the window is kept by the caller, who knows the order
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls is not None:
            client.tls_set_context(settings.tls)
        if will is not None:
            client.will_set(will.topic, will.payload, will.qos, will.retain)

    def open(self, timeout_s: float, deadline: Callable[[], float]) -> None:
        """Connect and wait for the broker's answer; a failure leaves nothing open.

        Args:
            timeout_s: for the transport (TCP and TLS each), and again for the broker's answer.
            deadline: returns the monotonic time by which the caller must be done, as of now.

        Raises:
            CredentialsError: user, password or certificate refused.
            VersionRefusedError: not this version of MQTT.
            BrokerError: not reached, refused for another reason, or no answer.
        """
        address = self._settings.address
        self._client.connect_timeout = max(0.01, min(timeout_s, deadline() - time.monotonic()))
        try:
            self._client.connect(address.host, address.port, self._settings.keepalive_s)
        except (OSError, ValueError) as error:
            raise _unreachable(self._settings, error) from error
        expires = time.monotonic() + timeout_s
        try:
            while not self._connected and time.monotonic() < (limit := min(expires, deadline())):
                self.loop_once(limit - time.monotonic())
        except BaseException:
            self.abort()
            raise
        if not self._connected:
            # amqtt waits for ever for the rest of a CONNECT with a will and MQTT 5's properties.
            self.abort()
            raise VersionRefusedError(
                f"the broker at {self._settings} does not answer",
                remedy="check that an MQTT broker listens there, and whether it wants TLS",
                certain=False,
            )

    def publish(self, message: Message) -> int:
        """Send a message, or leave it to the next `loop_once`; return its number here.

        Raises:
            BrokerError: the connection has ended.
        """
        properties = None
        if self.version == "5" and (message.expiry_s or message.content_type):
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # as paho is
            if message.expiry_s:
                properties.MessageExpiryInterval = message.expiry_s
            if message.content_type:
                properties.ContentType = message.content_type
        info = self._client.publish(
            message.topic, message.payload, message.qos, message.retain, properties
        )
        self._check(info.rc)
        return info.mid

    def subscribe(self, topic: str) -> None:
        """Subscribe to a topic with QoS 1.

        Raises:
            BrokerError: the connection has ended.
        """
        code, _number = self._client.subscribe(topic, qos=1)
        self._check(code)

    def loop_once(self, timeout_s: float) -> None:
        """Wait for the network or a wake-up, at most `timeout_s`, and handle it.

        Raises:
            BrokerError: the connection has ended.
            CredentialsError: the broker refused user, password or certificate.
        """
        transport = self._client.socket()
        if transport is None:
            self._check(MQTTErrorCode.MQTT_ERR_CONN_LOST)
            return
        descriptor = transport.fileno()
        reading = [descriptor, self._wakeup.fileno()] if self._wakeup else [descriptor]
        writing = [descriptor] if self._client.want_write() else []
        # paho checks its keep-alive timer in `loop_misc`, which wants a call about once a second.
        readable, writable, _ = select.select(reading, writing, [], min(max(timeout_s, 0.0), 1.0))
        if self._wakeup and self._wakeup.fileno() in readable:
            time.sleep(_GATHER_S)
            self._wakeup.drain()
        if descriptor in readable:
            self._read()
        if writable and self._client.socket() is not None:
            self._check(self._client.loop_write())
        self._check(self._client.loop_misc())

    def close(self) -> None:
        """Disconnect in an orderly way, so that no will is published; harmless when ended."""
        self._client.disconnect()
        self.abort()

    def abort(self) -> None:
        """Close the socket only, so that the broker publishes the will; harmless when ended."""
        if (transport := self._client.socket()) is not None:
            transport.close()

    def peer_tls(self) -> str | None:
        """Return TLS version and cipher in use, or None without TLS."""
        transport = self._client.socket()
        if not isinstance(transport, ssl.SSLSocket):
            return None
        cipher = transport.cipher()
        return f"{transport.version()}, {cipher[0] if cipher else 'unknown cipher'}"

    def _read(self) -> None:
        while True:
            try:
                self._check(self._client.loop_read())
            except (MQTTException, struct.error, IndexError) as error:
                raise self._unreadable(error) from error
            transport = self._client.socket()
            # TLS may have decrypted more than was read; select does not see that.
            if not isinstance(transport, ssl.SSLSocket) or not transport.pending():
                return

    def _unreadable(self, error: Exception) -> BrokerError:
        what = f"the broker at {self._settings} says what is no MQTT {self.version}: {error}"
        remedy = "check that an MQTT broker listens there, and `mqtt.protocol`"
        if self._connected:
            return BrokerError(what, remedy=remedy)
        return VersionRefusedError(what, remedy=remedy, certain=False)

    def _check(self, code: MQTTErrorCode) -> None:
        if self._fault is not None:
            raise self._fault
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            return
        what = paho.error_string(code).rstrip(".").lower()
        if self._connected:
            raise BrokerError(
                f"the connection to the broker at {self._settings} broke: {what}",
                remedy="check the network and the broker's log",
            )
        raise VersionRefusedError(
            f"the broker at {self._settings} hung up instead of answering: {what}",
            remedy="check the broker's log: it may want TLS, a client certificate or another "
            "version of MQTT (`mqtt.protocol`)",
            certain=False,
        )

    def _on_connect(
        self, _client: paho.Client, _data: Any, _flags: Any, reason: ReasonCode, answer: Any
    ) -> None:
        if not reason.is_failure:
            self._connected = True
            self.window = min(_WINDOW, getattr(answer, "ReceiveMaximum", _WINDOW))
            return
        self._fault = _refused(self._settings, self.version, reason)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, flags: Any, reason: ReasonCode, _answer: Any
    ) -> None:
        if self._fault is not None or not flags.is_disconnect_packet_from_server:
            return
        if reason.value == _TAKEN_OVER:
            self._fault = TakenOverError(
                f"another client took this one's place at the broker at {self._settings}",
                remedy="give each device its own `device.id`",
            )
        else:
            self._fault = BrokerError(
                f"the broker at {self._settings} hung up: {reason}",
                remedy="check the broker's log",
            )

    def _on_publish(
        self, _client: paho.Client, _data: Any, mid: int, reason: ReasonCode, _answer: Any
    ) -> None:
        self.on_acknowledged(mid, reason if reason.value >= _FAILURE else None)

    def _on_message(self, _client: paho.Client, _data: Any, received: paho.MQTTMessage) -> None:
        self.on_message(
            Message(received.topic, bytes(received.payload), received.qos, received.retain)
        )


def _unreachable(settings: BrokerSettings, error: Exception) -> BrokerError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerError(
            f"the certificate of the broker at {settings} is not trusted: {error.verify_message}",
            remedy="set `mqtt.ca_file` to the CA that signed it, and check the device's clock",
        )
    hung_up = settings.tls is not None and isinstance(error, ConnectionResetError)
    if isinstance(error, ssl.SSLError) or hung_up:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        return BrokerError(
            f"no TLS with the broker at {settings}: {reason}",
            remedy="check that this port speaks TLS; mqtt:// is for ports without",
        )
    what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return BrokerError(
        f"cannot reach the broker at {settings}: {what}",
        remedy="check the address in `mqtt.broker`, and that the broker runs",
    )


def _refused(
    settings: BrokerSettings, version: Version, reason: ReasonCode
) -> BrokerError | CredentialsError:
    if reason.value == _UNSUPPORTED_VERSION:
        return VersionRefusedError(
            f"the broker at {settings} does not speak MQTT {version}",
            remedy="set `mqtt.protocol` to auto",
            certain=True,
        )
    who = f"user {settings.username!r}" if settings.username else "a client without a user name"
    if reason.value in _CREDENTIALS_REFUSED:
        return CredentialsError(
            f"the broker at {settings} refuses {who}: {reason}",
            remedy="check `mqtt.username` and `mqtt.password_file`, and the broker's users",
        )
    return BrokerError(
        f"the broker at {settings} refused the connection: {reason}",
        remedy="check the broker's log",
    )
