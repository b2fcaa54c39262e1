"""The journal of a change of model: its phases, their order, and the decision at a start.

Only `read`, `write` and `forget` do I/O. One file for each model name,
`.state/activation/<name>.json`. It begins when the link is about to move: the steps before, from
staging to the self-test, leave nothing to take back, and are done again after a power cut.
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, Field

from fer_agent.models.manifest import Sha256
from fer_agent.system.records import StateRecord

STATE_FOLDER: Final = ".state"

MOST_REBOOTS: Final = 2
"""Starts of the board after which a pending version goes back; one may be a power cut."""


class Phase(str, Enum):
    """The phase of a change since the link was about to move; the values are those in the file."""

    SWITCHED = "switched"
    PENDING = "probation"
    CONFIRMED = "confirmed"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


_NEXT: Final[dict[Phase, set[Phase]]] = {
    Phase.SWITCHED: {Phase.PENDING, Phase.ROLLING_BACK},
    # An agent that ends in order leaves the version to the next start.
    Phase.PENDING: {Phase.PENDING, Phase.SWITCHED, Phase.CONFIRMED, Phase.ROLLING_BACK},
    Phase.CONFIRMED: {Phase.ROLLING_BACK},
    Phase.ROLLING_BACK: {Phase.ROLLED_BACK},
    Phase.ROLLED_BACK: set(),
}
"""The phases that may follow each; a new entry, which is `switched`, may replace any."""


class ModelVersion(StateRecord):
    """One version of a model; its manifest names the hash of every file."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    manifest_sha256: Sha256

    @property
    def key(self) -> str:
        """Name of its folder below `.versions/<name>/`."""
        return f"{self.version}-{self.manifest_sha256[:8]}"


class ClassifierFigures(StateRecord):
    """The speed of a classifier over some time."""

    seconds: Annotated[float, Field(ge=0.0)]
    """Seconds in which frames came."""
    fps: Annotated[float, Field(ge=0.0)]
    """Frames a second through all cameras' pipelines."""
    face_ms: Annotated[float, Field(ge=0.0)] | None
    """Milliseconds of classification for each face; null while none was seen."""


class JournalEntry(StateRecord):
    """The journal of one model name."""

    schema_version: Literal[1] = 1
    name: str
    phase: Phase
    candidate: ModelVersion
    """The version that is on its way."""
    previous: ModelVersion | None = None
    """The version to go back to; null for the one shipped with the agent."""
    since: AwareDatetime
    """When this phase began, by the board's clock."""
    boot_id: str = ""
    """The kernel's boot id when the version became pending, or at a later start."""
    reboots: int = 0
    """Starts of the board while the version was pending."""
    baseline: ClassifierFigures | None = None
    """Figures of the version before, for comparison; null when unknown."""
    reason: str = ""
    """Why it goes back."""
    replaces: JournalEntry | None = None
    """The entry of the version linked before, when that was pending too: it is valid again should
    the power fail between this entry and the move of the link."""

    def at(self, phase: Phase, **changes: Any) -> JournalEntry:
        """Return the entry in a following phase.

        Raises:
            ValueError: that phase cannot follow this one.
        """
        if phase not in _NEXT[self.phase]:
            raise ValueError(f"{self.name}: {phase.value} cannot follow {self.phase.value}")
        return self.model_copy(update={"phase": phase, "since": now(), **changes})

    @property
    def unconfirmed(self) -> bool:
        """True when the candidate was switched to and is not confirmed yet."""
        return self.phase in (Phase.SWITCHED, Phase.PENDING)

    def about(self, linked: str | None) -> JournalEntry | None:
        """Return the entry about the linked version: this one, or the one it replaces.

        Args:
            linked: key of the version that the link names; None for none.
        """
        if linked == self.candidate.key or self.phase is Phase.ROLLING_BACK:
            return self
        return None if self.replaces is None else self.replaces.about(linked)


class Found(str, Enum):
    """The task of a starting agent."""

    NOTHING = "nothing"
    BEGIN = "begin"
    GO_ON = "go-on"
    ROLL_BACK = "roll-back"
    FINISH_ROLLBACK = "finish-rollback"


def assess(entry: JournalEntry | None, linked: str | None, *, boot_id: str, watched: bool) -> Found:
    """Return the task of a start.

    Args:
        entry: the journal; None when there is none.
        linked: key of the version that the link names; None for none.
        boot_id: the kernel's boot id now.
        watched: whether another living agent watches the pending version.
    """
    entry = None if entry is None else entry.about(linked)
    if entry is None:
        return Found.NOTHING
    if entry.phase is Phase.ROLLING_BACK:
        return Found.FINISH_ROLLBACK
    if watched or not entry.unconfirmed:
        return Found.NOTHING
    if entry.phase is Phase.SWITCHED:
        return Found.BEGIN
    # Nothing watches it, so the agent that did has died.
    if entry.boot_id == boot_id or entry.reboots + 1 >= MOST_REBOOTS:
        return Found.ROLL_BACK
    return Found.GO_ON


def now() -> datetime:
    """Return the time of the board's clock, in whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def boot_id() -> str:
    """Return the kernel's boot id; empty where unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def path(store: Path, name: str) -> Path:
    """Return the journal's file."""
    return store / STATE_FOLDER / "activation" / f"{name}.json"


def read(store: Path, name: str) -> JournalEntry | None:
    """Read the journal; None without one that this agent can read."""
    return JournalEntry.read(path(store, name))


def write(store: Path, entry: JournalEntry) -> None:
    """Put the journal on the disk.

    Raises:
        OSError: the store cannot be written.
    """
    entry.write(path(store, entry.name))


def forget(store: Path, name: str) -> None:
    """Remove the journal, as after a switch to the shipped version; harmless when there is none.

    Raises:
        OSError: the store cannot be written.
    """
    path(store, name).unlink(missing_ok=True)
