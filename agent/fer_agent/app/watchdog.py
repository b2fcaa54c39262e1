"""Notifications to systemd: ready, alive, stopping.

The protocol is sd_notify(3): a datagram of `KEY=value` lines to the socket in `$NOTIFY_SOCKET`.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Mapping

logger = logging.getLogger(__name__)

_NOTIFICATIONS_PER_PERIOD = 4
"""sd_watchdog_enabled(3) asks for at least two; one more may be late or withheld."""


class ServiceManager:
    """The service manager that started the agent, if any.

    Args:
        environ: the environment with `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        # Children inherit the variables; the process id says whom they are meant for.
        meant = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and meant else math.inf
        """Seconds without `WATCHDOG=1` after which the service is killed."""

    def notify(self, *lines: str) -> None:
        """Send `KEY=value` lines; a message that cannot be sent is lost, and the log says so."""
        if not self._address:
            return
        # A leading @ stands for the null byte of Linux's abstract sockets.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            logger.warning("cannot tell systemd %s: %s", lines[0], error.strerror)


class Watchdog:
    """Sends `WATCHDOG=1` while every worker makes progress.

    Args:
        progress: for each worker a function whose number rises while the worker makes progress or
            waits for something that is a published state, such as a camera that is offline; a
            number that stands still is a call that does not return.
        manager: where notifications go.
    """

    def __init__(
        self, progress: Mapping[str, Callable[[], int]], manager: ServiceManager | None = None
    ) -> None:
        self._progress = progress
        self._manager = manager or ServiceManager()
        self._last: dict[str, int] = {}
        self._notified_s = -math.inf
        self._stuck: list[str] = []

    @property
    def interval_s(self) -> float:
        """Seconds between two calls of `notify`; infinite when nobody watches."""
        return self._manager.watchdog_s / _NOTIFICATIONS_PER_PERIOD

    def ready(self) -> None:
        """Report that configuration, models and loops are up."""
        self._manager.notify("READY=1")

    def stopping(self) -> None:
        """Report that the agent is stopping."""
        self._manager.notify("STOPPING=1")

    def notify(self, ended: Collection[str] = ()) -> None:
        """Notify systemd, unless a worker made no progress since the last time.

        Args:
            ended: workers whose source is finished.
        """
        now_s = time.monotonic()
        # Between calls that follow too closely no worker has the time to make progress.
        if math.isinf(self.interval_s) or now_s - self._notified_s < self.interval_s / 2:
            return
        self._notified_s = now_s
        now = {name: counter() for name, counter in self._progress.items() if name not in ended}
        stuck = [name for name, count in now.items() if self._last.get(name) == count]
        self._last = now
        if stuck and stuck != self._stuck:
            logger.warning("camera %s does not move; if it stays so, systemd restarts the agent",
                           ", ".join(stuck))  # fmt: skip
        self._stuck = stuck
        if not stuck:
            self._manager.notify(
                "WATCHDOG=1", f"STATUS={len(now)} of {len(self._progress)} cameras run"
            )
