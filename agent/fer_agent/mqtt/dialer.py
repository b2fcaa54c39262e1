"""Connecting: which version of MQTT to speak, and how long to wait between attempts."""

from __future__ import annotations

import logging
import math
import random
from typing import TYPE_CHECKING

from fer_agent.mqtt.link import Link, VersionRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.mqtt.link import Version, Waker, Will
    from fer_agent.mqtt.settings import BrokerSettings

logger = logging.getLogger(__name__)


class Dialer:
    """Opens links, and remembers which version of MQTT the broker took."""

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        will: Will | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._timeout_s = timeout_s
        self._version: Version = "3.1.1" if settings.protocol == "3.1.1" else "5"
        self._proven: Version | None = None

    def dial(self, waker: Waker, patience_s: Callable[[], float] = lambda: math.inf) -> Link:
        """Open a link, in the other version of MQTT when the broker does not take the first.

        A broker that merely hung up or kept silent is only asked in the other version while none
        has worked yet: brokers also do that while they restart.

        Args:
            waker: interrupts waiting, so that `patience_s` is asked again.
            patience_s: seconds that the caller can still spare.

        Raises:
            CredentialsError: user, password or certificate refused.
            BrokerError: no connection in any permitted version.
        """
        try:
            return self._open(self._version, waker, patience_s)
        except VersionRefusedError as refusal:
            known_good = self._proven == self._version and not refusal.certain
            if self._settings.protocol != "auto" or known_good or patience_s() <= 0:
                raise
            other: Version = "3.1.1" if self._version == "5" else "5"
            logger.debug("%s; trying MQTT %s", refusal, other)
            return self._open(other, waker, patience_s)

    def _open(self, version: Version, waker: Waker, patience_s: Callable[[], float]) -> Link:
        link = Link(self._settings, version, self._client_id, self._will)
        link.open(waker, self._timeout_s, patience_s)
        self._version = self._proven = version
        return link


class Backoff:
    """How long to wait before the next attempt: doubling, capped, with jitter.

    A connection must have lasted for a while to count as a success, so that a broker which hangs up
    on us is not asked again every second.
    """

    def __init__(self, *, first_s: float, longest_s: float, stable_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._stable_s = stable_s
        self._failures = 0

    def next_s(self, *, connected_s: float, hopeless: bool = False) -> float:
        """Return seconds to wait after a failure.

        Args:
            connected_s: how long the connection had lasted; 0 when there was none.
            hopeless: only a person can mend it: take the longest wait at once.
        """
        if connected_s >= self._stable_s:
            self._failures = 0
        # 2 ** 30 seconds are over any cap; the bound keeps the power from growing for ever.
        wait_s = self._longest_s if hopeless else self._first_s * 2 ** min(self._failures, 30)
        self._failures += 1
        return min(wait_s, self._longest_s) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
