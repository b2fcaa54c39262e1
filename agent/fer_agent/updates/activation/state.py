"""What the rest of the agent may know of a model's updates: what runs, and what was refused.

Refusals lie in `<store>/.state/refused.json`. A refused version is not tried again by itself: a
new version is, and so is the same one when a person activates it by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import AwareDatetime, ValidationError

from fer_agent.system import durable
from fer_agent.updates.activation import journal
from fer_agent.updates.activation.journal import Build, Part, Phase

if TYPE_CHECKING:
    from pathlib import Path

_MOST_KEPT: Final = 64
"""Refusals remembered; far more than a repository holds versions of one model."""


class Refusal(Part):
    """A version that did not prove itself."""

    name: str
    build: Build
    reason: str
    """Why, in one sentence for people."""
    at: AwareDatetime
    """When, by the board's clock."""


class Refusals(Part):
    """`refused.json`, the oldest first."""

    schema_version: Literal[1] = 1
    refused: tuple[Refusal, ...] = ()

    def of(self, name: str, build: Build) -> Refusal | None:
        """Return the refusal of one version, if it was refused."""
        for refusal in self.refused:
            if (refusal.name, refusal.build) == (name, build):
                return refusal
        return None

    def has(self, name: str, key: str) -> bool:
        """Tell whether the version in a folder of that key was refused."""
        return any((each.name, each.build.key) == (name, key) for each in self.refused)


class UpdateState(Part):
    """One model's updates, as of now."""

    name: str
    current: Build | None
    """The version that the store's link names; null while the shipped one runs."""
    on_probation: bool
    """Whether the current version still has to prove itself."""
    last_refusal: Refusal | None
    """The newest version that did not prove itself; null when there was none, or when a later one
    was confirmed since."""


def path(store: Path) -> Path:
    """Return the file of refusals."""
    return store / journal.STATE_FOLDER / "refused.json"


def refusals(store: Path) -> Refusals:
    """Read the refusals; a missing or damaged file refuses nothing."""
    try:
        return Refusals.model_validate_json(path(store).read_bytes())
    except (OSError, ValidationError):
        return Refusals()


def refuse(store: Path, refusal: Refusal) -> None:
    """Remember a refusal, in the place of an older one of the same version.

    Raises:
        OSError: the store cannot be written.
    """
    others = [
        each
        for each in refusals(store).refused
        if (each.name, each.build) != (refusal.name, refusal.build)
    ]
    _write(store, [*others, refusal])


def forgive(store: Path, name: str, build: Build) -> None:
    """Forget the refusal of one version; harmless when there is none.

    Raises:
        OSError: the store cannot be written.
    """
    known = refusals(store)
    if known.of(name, build) is not None:
        _write(store, [each for each in known.refused if (each.name, each.build) != (name, build)])


def update_state(store: Path, name: str, current: Build | None) -> UpdateState:
    """Put together what the journal and the refusals say of one model.

    Args:
        store: the model store.
        name: the model.
        current: the version that the link names.
    """
    entry = journal.read(store, name)
    refused = [refusal for refusal in refusals(store).refused if refusal.name == name]
    last = max(refused, key=lambda refusal: refusal.at, default=None)
    proven = entry is not None and entry.phase is Phase.CONFIRMED
    if last is not None and entry is not None and proven and entry.since > last.at:
        last = None
    return UpdateState(
        name=name,
        current=current,
        on_probation=entry is not None and entry.unconfirmed and entry.candidate == current,
        last_refusal=last,
    )


def _write(store: Path, refused: list[Refusal]) -> None:
    content = Refusals(refused=tuple(refused[-_MOST_KEPT:]))
    durable.write(path(store), content.model_dump_json(indent=1).encode() + b"\n")
