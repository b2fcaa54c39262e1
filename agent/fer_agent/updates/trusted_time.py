"""A lower bound of the time, on a board whose clock may be wrong at boot.

A Raspberry Pi has no clock that runs without power. Judged by its wall time, good metadata would
look expired or not yet due, and an attacker who feeds it an old time could freeze it. So expiry is
judged against the latest of three times: the build of this package, the last sync that succeeded
with a synchronised clock, and the clock itself while it is synchronised.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, Literal

from pydantic import AwareDatetime

from fer_agent.system.clock import clock_synced
from fer_agent.system.records import StateRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tuf.ngclient import Updater

BUILD_TIME: Final = datetime(2026, 11, 24, tzinfo=timezone.utc)
"""It is later than this wherever this code runs; renewed with every release."""


class UnknownClientError(TypeError):
    """The installed update client does not keep its time as versions 6 and 7 do."""


class _Kept(StateRecord):
    schema_version: Literal[1] = 1
    time: AwareDatetime
    """UTC; a sync succeeded then, by a synchronised clock."""


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """The time that expiry is judged against.

    Attributes:
        path: file that keeps the last trusted time.
        now: reads the board's clock.
        synced: returns whether that clock is synchronised; None where unknown.
    """

    path: Path
    now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)
    synced: Callable[[], bool | None] = clock_synced

    def read(self) -> datetime:
        """Return the trusted time in UTC and whole seconds, never later than the real one."""
        known = [BUILD_TIME]
        if kept := _Kept.read(self.path):
            known.append(kept.time)
        if self.synced():
            known.append(self.now())
        return max(known).replace(microsecond=0)

    def keep(self, when: datetime) -> None:
        """Keep a time after a sync that succeeded with it; it never goes back.

        Only then: the expiry of valid metadata bounds how far a false time can be ahead.

        Raises:
            OSError: the file cannot be written.
        """
        kept = _Kept.read(self.path)
        if when > BUILD_TIME and (kept is None or when > kept.time):
            _Kept(time=when).write(self.path)


def set_reference_time(updater: Updater, when: datetime) -> None:
    """Let a client judge expiry against a given time instead of the system's clock.

    python-tuf has no public way, so this sets a private attribute: `TrustedMetadataSet` takes the
    time once, when the client is made, and compares with it from then on (tuf 6 and 7).

    Raises:
        UnknownClientError: the client has no such attribute.
    """
    trusted = getattr(updater, "_trusted_set", None)
    if not isinstance(getattr(trusted, "reference_time", None), datetime):
        raise UnknownClientError(
            "python-tuf no longer has Updater._trusted_set.reference_time; "
            "fer-agent knows versions 6 and 7"
        )
    trusted.reference_time = when  # type: ignore[union-attr]
