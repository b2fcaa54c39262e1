"""The relation of monotonic time and wall time, and the wall time's synchronisation."""

from __future__ import annotations

import ctypes
import functools
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

_TIME_ERROR = 5
"""The result of adjtimex(2) while the clock is not synchronised."""

_TIMESYNCD = Path("/run/systemd/timesync/synchronized")
"""File that systemd-timesyncd touches at each synchronisation since boot (its manual page)."""

_TIMEX_BYTES = 512
"""More than `struct timex` has on any Linux (208 on 64 bits); its first field, modes, stays 0."""


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def clock_synced() -> bool | None:
    """Tell whether NTP or PTP keeps the clock right, by the kernel; None where unknown.

    A Raspberry Pi has no clock that runs without power: until the first synchronisation its wall
    time is that of the last shutdown. Sandboxes that protect the clock (systemd's ProtectClock,
    containers) refuse adjtimex; there the file of systemd-timesyncd counts.
    """
    try:
        state: int = _libc().adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return True if _TIMESYNCD.exists() else None
    return state != _TIME_ERROR


@dataclass(frozen=True, slots=True)
class ClockReading:
    """The relation of the two clocks at one moment.

    Attributes:
        offset_ns: wall time (Unix) minus monotonic time.
        synced: whether the wall time was synchronised; None where unknown.
    """

    offset_ns: int
    synced: bool | None

    @classmethod
    def now(cls) -> ClockReading:
        """Read both clocks and ask the kernel."""
        return cls(offset_ns=time.time_ns() - time.monotonic_ns(), synced=clock_synced())

    def wall(self, monotonic_ns: int) -> datetime:
        """Return the UTC date and time of a monotonic moment, to the microsecond."""
        return datetime.fromtimestamp((monotonic_ns + self.offset_ns) / 1e9, timezone.utc)
