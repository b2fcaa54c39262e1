"""How far a change of model has come: the steps, which may follow which, and what a start finds.

Pure but for `read` and `write`. One file for each model name, `.state/activation/<name>.json`. It
begins when the link is about to move: what comes before, from staging to the trial, leaves nothing
that has to be taken back, and after a power cut is simply done again.
"""

from __future__ import annotations

from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fer_agent.models.manifest import Sha256
from fer_agent.system import durable

STATE_FOLDER: Final = ".state"

MOST_REBOOTS: Final = 2
"""The board may lose power during a probation, but a model that takes it down again goes back."""


class Phase(str, Enum):
    """How far it has come since the link was about to move."""

    SWITCHED = "switched"
    PROBATION = "probation"
    CONFIRMED = "confirmed"
    ROLLING_BACK = "rolling-back"
    ROLLED_BACK = "rolled-back"


_NEXT: Final[dict[Phase, set[Phase]]] = {
    Phase.SWITCHED: {Phase.PROBATION, Phase.ROLLING_BACK},
    # An agent that ends in order hands the probation to the next one.
    Phase.PROBATION: {Phase.PROBATION, Phase.SWITCHED, Phase.CONFIRMED, Phase.ROLLING_BACK},
    Phase.CONFIRMED: {Phase.ROLLING_BACK},
    Phase.ROLLING_BACK: {Phase.ROLLED_BACK},
    Phase.ROLLED_BACK: set(),
}
"""What may follow; a new entry, which is `switched`, may replace any."""


class Part(BaseModel):
    """Base of what lies in `.state/`; unknown fields come from a newer agent and are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Build(Part):
    """One version of a model, down to its bytes: the manifest names the hash of every file."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    manifest_sha256: Sha256

    @property
    def key(self) -> str:
        """Name of its folder below `.versions/<name>/`."""
        return f"{self.version}-{self.manifest_sha256[:8]}"


class Figures(Part):
    """How a classifier did over a while."""

    seconds: Annotated[float, Field(ge=0.0)]
    """Seconds in which frames came."""
    fps: Annotated[float, Field(ge=0.0)]
    """Frames a second that went through all cameras' pipelines in them."""
    face_ms: Annotated[float, Field(ge=0.0)] | None
    """Milliseconds of classification for each face; null while none was seen."""


class Entry(Part):
    """The journal of one model name."""

    schema_version: Literal[1] = 1
    name: str
    phase: Phase
    candidate: Build
    """The version that is on its way."""
    previous: Build | None = None
    """The version to go back to; null for the one shipped with the agent."""
    since: AwareDatetime
    """When this phase began, by the board's clock."""
    boot_id: str = ""
    """The kernel's boot id when the probation began or went on."""
    reboots: int = 0
    """Starts of the board during the probation."""
    baseline: Figures | None = None
    """How the version before did, for comparison; null when that is not known."""
    reason: str = ""
    """Why it goes back."""
    replaces: Entry | None = None
    """The entry of the version that was linked before, when that had not proved itself either: it
    stands again should the power fail between this entry and the move of the link."""

    def at(self, phase: Phase, **changes: Any) -> Entry:
        """Return the entry one step on.

        Raises:
            ValueError: that step cannot follow this one.
        """
        if phase not in _NEXT[self.phase]:
            raise ValueError(f"{self.name}: {phase.value} cannot follow {self.phase.value}")
        return self.model_copy(update={"phase": phase, "since": now(), **changes})

    @property
    def unconfirmed(self) -> bool:
        """Whether the candidate was switched to and has not proved itself yet."""
        return self.phase in (Phase.SWITCHED, Phase.PROBATION)

    def about(self, linked: str | None) -> Entry | None:
        """Return the entry that tells of the linked version: this one, or the one it replaces.

        Args:
            linked: key of the version that the link names; None for none.
        """
        if linked == self.candidate.key or self.phase is Phase.ROLLING_BACK:
            return self
        return None if self.replaces is None else self.replaces.about(linked)


class Found(str, Enum):
    """What a starting agent has to do about what it finds."""

    NOTHING = "nothing"
    BEGIN = "begin"
    GO_ON = "go-on"
    ROLL_BACK = "roll-back"
    FINISH_ROLLBACK = "finish-rollback"


def assess(entry: Entry | None, linked: str | None, *, boot_id: str, watched: bool) -> Found:
    """Say what a start finds.

    Args:
        entry: the journal; None when there is none.
        linked: key of the version that the link names; None for none.
        boot_id: the kernel's boot id now.
        watched: whether another living agent watches over the probation.
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
    # Nobody watches, so whoever did has died without a word.
    if entry.boot_id == boot_id or entry.reboots + 1 >= MOST_REBOOTS:
        return Found.ROLL_BACK
    return Found.GO_ON


def now() -> datetime:
    """Return the time of the board's clock, in whole seconds."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def boot_id() -> str:
    """Return the id that the kernel made at boot; empty where it does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def path(store: Path, name: str) -> Path:
    """Return the journal's file."""
    return store / STATE_FOLDER / "activation" / f"{name}.json"


def read(store: Path, name: str) -> Entry | None:
    """Read the journal; None when there is none, or none this agent can make sense of."""
    try:
        return Entry.model_validate_json(path(store, name).read_bytes())
    except (OSError, ValidationError):
        return None


def write(store: Path, entry: Entry) -> None:
    """Put the journal on the disk.

    Raises:
        OSError: the store cannot be written.
    """
    durable.write(path(store, entry.name), entry.model_dump_json(indent=1).encode() + b"\n")


def forget(store: Path, name: str) -> None:
    """Remove the journal, as after a switch to the shipped version; harmless when there is none.

    Raises:
        OSError: the store cannot be written.
    """
    path(store, name).unlink(missing_ok=True)
