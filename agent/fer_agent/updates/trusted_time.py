"""What time it is at least, on a board whose clock may be wrong at boot.

A Raspberry Pi has no clock that runs without power. Judged by its wall time, good metadata would
look expired or not yet due; and an attacker who feeds it an old time could freeze it. So expiry is
judged against the latest of what is known for sure: when this package was built, the last time at
which a sync succeeded with a synchronised clock, and the clock itself while it is synchronised.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from fer_agent.system import durable
from fer_agent.system.clock import clock_synced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tuf.ngclient import Updater

BUILD_TIME: Final = datetime(2026, 11, 24, tzinfo=timezone.utc)
"""It is later than this wherever this code runs; renewed with every release."""


class UnknownClientError(TypeError):
    """The installed update client keeps its time elsewhere than this package knows."""


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    time: AwareDatetime
    """UTC; a sync succeeded then, by a synchronised clock."""


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True, slots=True)
class TrustedTime:
    """The time that expiry is judged against.

    Attributes:
        path: file that keeps the last trusted time.
        now: reads the board's clock.
        synced: tells whether something keeps that clock right; None where unknown.
    """

    path: Path
    now: Callable[[], datetime] = _now
    synced: Callable[[], bool | None] = clock_synced

    def read(self) -> datetime:
        """Return the trusted time: UTC, in whole seconds, never later than it really is."""
        known = [BUILD_TIME]
        if (kept := self._kept()) is not None:
            known.append(kept)
        if self.synced():
            known.append(self.now())
        return max(known).replace(microsecond=0)

    def keep(self, when: datetime) -> None:
        """Remember a time after a sync that succeeded with it; never goes back.

        Only then: metadata that is valid at a time bounds how far a false one can lie ahead.

        Raises:
            OSError: the file cannot be written.
        """
        kept = self._kept()
        if when > BUILD_TIME and (kept is None or when > kept):
            content = _Kept(time=when).model_dump_json().encode() + b"\n"
            durable.write(self.path, content)

    def _kept(self) -> datetime | None:
        try:
            return _Kept.model_validate_json(self.path.read_bytes()).time
        except (OSError, ValidationError):
            return None


def set_reference_time(updater: Updater, when: datetime) -> None:
    """Let a client judge expiry against a time of ours instead of the system's clock.

    python-tuf gives no way to say it, so this reaches into the client: `TrustedMetadataSet` takes
    the time once, when the client is made, and compares with it from then on (tuf 6 and 7).

    Raises:
        UnknownClientError: the client is not built like that.
    """
    trusted = getattr(updater, "_trusted_set", None)
    if not isinstance(getattr(trusted, "reference_time", None), datetime):
        raise UnknownClientError(
            "python-tuf no longer has Updater._trusted_set.reference_time; "
            "fer-agent knows versions 6 and 7"
        )
    trusted.reference_time = when  # type: ignore[union-attr]
