"""The connector, which connects to a broker in the version of MQTT that it accepts."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from fer_agent.mqtt.connection import (
    Connection,
    Message,
    Version,
    VersionRefusedError,
    WakeupSocket,
)
from fer_agent.mqtt.settings import BrokerSettings

logger = logging.getLogger(__name__)


class Connector:
    """A maker of connections that remembers which version of MQTT the broker accepted."""

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        will: Message | None = None,
        *,
        timeout_s: float = 5.0,
        wakeup: WakeupSocket | None = None,
    ) -> None:
        """Prepare to connect.

        Args:
            settings: the broker.
            client_id: the MQTT client id.
            will: the message that the broker publishes when the client is lost.
            timeout_s: for the transport (TCP and TLS each), and again for the broker's answer.
            wakeup: interrupts waiting on the connections, so that `deadline` is read again.
        """
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._timeout_s = timeout_s
        self._wakeup = wakeup
        self._version: Version = "3.1.1" if settings.protocol == "3.1.1" else "5"
        self._accepted: Version | None = None

    def connect(self, deadline: Callable[[], float] = lambda: math.inf) -> Connection:
        """Open a connection, in the other version of MQTT when the broker rejects the first.

        A broker that merely closed the connection or did not answer is only tried in the other
        version while none has worked yet: brokers also do that while they restart.

        Args:
            deadline: returns the monotonic time by which the caller must be done, as of now.

        Raises:
            CredentialsError: user, password or certificate refused.
            BrokerError: no connection in any permitted version.
        """
        try:
            return self._open(self._version, deadline)
        except VersionRefusedError as refusal:
            known_good = self._accepted == self._version and not refusal.certain
            expired = deadline() <= time.monotonic()
            if self._settings.protocol != "auto" or known_good or expired:
                raise
            other: Version = "3.1.1" if self._version == "5" else "5"
            logger.debug("%s; trying MQTT %s", refusal, other)
            return self._open(other, deadline)

    def _open(self, version: Version, deadline: Callable[[], float]) -> Connection:
        connection = Connection(self._settings, version, self._client_id, self._will, self._wakeup)
        connection.open(self._timeout_s, deadline)
        self._version = self._accepted = version
        return connection
