"""Rejected versions, in `<store>/.state/refused.json`, and the state of a model's updates.

A sync does not activate a rejected version again; a person can.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import AwareDatetime, Field

from fer_agent.system.records import StateRecord
from fer_agent.updates.activation import journal
from fer_agent.updates.activation.journal import ModelVersion, Phase

_MOST_KEPT: Final = 64
"""Rejected versions remembered; far more than a repository holds versions of one model."""


class RejectedVersion(StateRecord):
    """A version that failed its self-test or went back."""

    name: str
    build: ModelVersion
    reason: str
    """Why, in one sentence for people."""
    at: AwareDatetime = Field(default_factory=journal.now)
    """When, by the board's clock."""


class RejectedVersions(StateRecord):
    """`refused.json`, the oldest first."""

    schema_version: Literal[1] = 1
    refused: tuple[RejectedVersion, ...] = ()

    def of(self, name: str, build: ModelVersion) -> RejectedVersion | None:
        """Return one version with its reason; None when it was not rejected."""
        found = (each for each in self.refused if (each.name, each.build) == (name, build))
        return next(found, None)

    def has(self, name: str, key: str) -> bool:
        """Return whether the version in a folder of that key was rejected."""
        return any((each.name, each.build.key) == (name, key) for each in self.refused)


class UpdateState(StateRecord):
    """One model's updates, as of now."""

    name: str
    current: ModelVersion | None
    """The version that the store's link names; null while the shipped one runs."""
    pending: bool
    """True if the current version is not confirmed yet."""
    last_rejected: RejectedVersion | None
    """The version rejected last; null without one, or when one was confirmed since."""


def path(store: Path) -> Path:
    """Return the file of rejected versions."""
    return store / journal.STATE_FOLDER / "refused.json"


def rejected(store: Path) -> RejectedVersions:
    """Read the rejected versions; a missing or damaged file has none."""
    return RejectedVersions.read(path(store)) or RejectedVersions()


def reject(store: Path, version: RejectedVersion) -> None:
    """Remember a rejected version, in the place of an older entry of the same one.

    Raises:
        OSError: the store cannot be written.
    """
    _write(store, [*_others(store, version.name, version.build), version])


def unblock(store: Path, name: str, build: ModelVersion) -> None:
    """Let one version be activated again; harmless when it was not rejected.

    Raises:
        OSError: the store cannot be written.
    """
    if rejected(store).of(name, build) is not None:
        _write(store, _others(store, name, build))


def update_state(store: Path, name: str, current: ModelVersion | None) -> UpdateState:
    """Return one model's state by the journal and the rejected versions.

    Args:
        store: the model store.
        name: the model.
        current: the version that the link names.
    """
    entry = journal.read(store, name)
    refused = [each for each in rejected(store).refused if each.name == name]
    last = max(refused, key=lambda each: each.at, default=None)
    confirmed = entry is not None and entry.phase is Phase.CONFIRMED
    if last is not None and entry is not None and confirmed and entry.since > last.at:
        last = None
    return UpdateState(
        name=name,
        current=current,
        pending=entry is not None and entry.unconfirmed and entry.candidate == current,
        last_rejected=last,
    )


def _others(store: Path, name: str, build: ModelVersion) -> list[RejectedVersion]:
    return [each for each in rejected(store).refused if (each.name, each.build) != (name, build)]


def _write(store: Path, refused: list[RejectedVersion]) -> None:
    RejectedVersions(refused=tuple(refused[-_MOST_KEPT:])).write(path(store))
