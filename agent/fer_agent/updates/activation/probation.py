"""From the switch to the proof: what a start settles, and how a version is confirmed or goes back.

Whoever runs a version that has not proved itself holds a lease on it: a lock that the kernel
frees when its holder dies. A start that finds a probation and a free lease knows of the death.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer_agent.errors import ModelError, UsageError
from fer_agent.models.manifest import read_manifest
from fer_agent.models.store import StoredModel, find_model, shipped_folder
from fer_agent.system import durable
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.journal import Entry, Found, Phase
from fer_agent.updates.activation.state import Refusal
from fer_agent.updates.activation.versions import Versions, by_number, verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_agent.updates.activation.journal import Build, Figures

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(store: Path) -> Iterator[None]:
    """Be the only one who changes journal, refusals and link; held for moments only."""
    with durable.locked(store / journal.STATE_FOLDER / "journal.lock", wait=True):
        yield


@dataclass(frozen=True, slots=True)
class Lease:
    """The right and duty to watch over one version's probation, held until `end` or death."""

    store: Path
    entry: Entry
    held: contextlib.ExitStack

    def confirm(self) -> None:
        """Note that the version has proved itself, and end the lease.

        Raises:
            OSError: the store cannot be written.
        """
        with alone(self.store):
            entry = self._current()
            if entry is not None:
                journal.write(self.store, entry.at(Phase.CONFIRMED, replaces=None))
                logger.info("%s %s has proved itself", entry.name, entry.candidate.version)
        self.held.close()

    def roll_back(self, reason: str) -> None:
        """Go back to the version before, remember why, and end the lease.

        Raises:
            OSError: the store cannot be written.
        """
        with alone(self.store):
            entry = self._current()
            if entry is not None:
                _go_back(self.store, entry.at(Phase.ROLLING_BACK, reason=reason, replaces=None))
        self.held.close()

    def end(self) -> None:
        """Give the probation back in order: the next start begins it again."""
        try:
            with alone(self.store):
                entry = self._current()
                if entry is not None:
                    journal.write(self.store, entry.at(Phase.SWITCHED))
        except OSError as error:
            logger.warning("cannot keep the journal of %s: %s", self.entry.name, error)
        self.held.close()

    def drop(self) -> None:
        """Let go of a version that is not linked any more; what was switched to has its own."""
        self.held.close()

    def _current(self) -> Entry | None:
        """Read the entry again; None when another version was switched to meanwhile."""
        linked = Versions(self.store, self.entry.name).linked()
        entry = journal.read(self.store, self.entry.name)
        entry = None if entry is None else entry.about(linked)
        watched = entry is not None and entry.candidate == self.entry.candidate
        return entry if watched and entry is not None and entry.phase is Phase.PROBATION else None


def settle(store: Path, name: str, baseline: Figures | None = None) -> Lease | None:
    """Deal with what the journal says before the linked version is loaded.

    A version whose agent died goes back; a rollback that was cut short is finished.

    Args:
        store: the model store's folder.
        name: the model's name.
        baseline: how the version before did, where that is known.

    Returns:
        The lease on the linked version, to be taken before it is loaded; None when it has proved
        itself, is watched by another agent, or was never switched to.

    Raises:
        OSError: the store cannot be written.
    """
    if journal.read(store, name) is None:
        return None
    with contextlib.ExitStack() as held, alone(store):
        lease = journal.path(store, name).with_suffix(".lease")
        watched = not held.enter_context(durable.locked(lease, wait=False))
        entry, linked = journal.read(store, name), Versions(store, name).linked()
        boot_id = journal.boot_id()
        found = journal.assess(entry, linked, boot_id=boot_id, watched=watched)
        entry = None if entry is None else entry.about(linked)
        if entry is None or found is Found.NOTHING:
            return None
        if found is Found.FINISH_ROLLBACK:
            _go_back(store, entry)
            return None
        if found is Found.ROLL_BACK:
            reason = "the agent died while this version was on probation"
            _go_back(store, entry.at(Phase.ROLLING_BACK, reason=reason, replaces=None))
            return None
        entry = entry.at(
            Phase.PROBATION,
            boot_id=boot_id,
            reboots=entry.reboots + (found is Found.GO_ON),
            baseline=baseline or entry.baseline,
        )
        journal.write(store, entry)
        logger.info("%s %s is on probation", name, entry.candidate.version)
        return Lease(store, entry, held.pop_all())


def roll_back(store: Path, name: str, reason: str) -> Build | None:
    """Go back to the version before at a person's wish; the one left behind is remembered.

    Returns:
        The version that runs now; None for the one shipped with the agent.

    Raises:
        UsageError: nothing is linked, or there is nothing to go back to.
        AgentError: the store cannot be written.
    """
    versions = Versions(store, name)
    versions.refuse_folder_by_hand()
    try:
        with alone(store):
            current = versions.current()
            if current is None:
                raise UsageError(
                    f"{name} runs in the version shipped with the agent; there is none before it",
                    remedy=f"see `fer-agent models list`, or `fer-agent models activate {name}`",
                )
            entry = journal.read(store, name)
            entry = None if entry is None else entry.about(current.key)
            if entry is not None:
                previous = entry.previous
            else:
                previous = _newest_before(versions, store, current)
            if previous is None and not (shipped_folder() / name).is_dir():
                raise UsageError(
                    f"{name} {current.version} is the only version of that model here",
                    remedy="let `fer-agent models sync` bring another one first",
                )
            _go_back(store, Entry(
                name=name, phase=Phase.ROLLING_BACK, candidate=current, previous=previous,
                since=journal.now(), reason=reason,
            ))  # fmt: skip
    except OSError as error:
        raise durable.refused(error, store) from error
    return versions.current()


def candidates(store: Path, name: str) -> Iterator[StoredModel]:
    """Yield what a start may load, best first: what is linked, what ran before, then the shipped.

    A folder made by hand, or a name without a link, has no other than itself. Files are not
    verified here: whoever loads one does that.

    Args:
        store: the model store's folder.
        name: the model's name.

    Raises:
        ModelError: nothing is linked, and there is no model of that name or its manifest is not
            valid.
    """
    versions = Versions(store, name)
    linked = versions.linked()
    if linked is None:
        yield find_model(name, store)
        return
    entry = journal.read(store, name)
    previous = [entry.previous.key] if entry is not None and entry.previous is not None else []
    for key in dict.fromkeys([linked, *previous, *_not_refused(versions, store)]):
        folder = versions.folder(key)
        try:
            manifest = read_manifest(folder / "manifest.json")
        except ModelError as error:
            logger.warning("cannot use %s %s: %s", name, key, error)
        else:
            yield StoredModel(folder=folder, manifest=manifest)
    if (shipped_folder() / name / "manifest.json").is_file():
        yield find_model(name)


def _not_refused(versions: Versions, store: Path) -> list[str]:
    """Return the keys of the versions that may run, newest first."""
    refused = state.refusals(store)
    return [key for key in versions.installed() if not refused.has(versions.name, key)]


def _newest_before(versions: Versions, store: Path, current: Build) -> Build | None:
    """Return the newest whole version below the current one; None for the shipped one."""
    for key in _not_refused(versions, store):
        if by_number(key) < by_number(current.version):
            with contextlib.suppress(ModelError):
                return verify(versions.folder(key), versions.name)
    return None


def _go_back(store: Path, entry: Entry) -> None:
    """Do what an entry that is `rolling-back` says; doing it twice is harmless."""
    journal.write(store, entry)
    refusal = Refusal(name=entry.name, build=entry.candidate, reason=entry.reason, at=journal.now())
    state.refuse(store, refusal)
    versions = Versions(store, entry.name)
    previous = entry.previous
    if previous is not None and not versions.folder(previous.key).is_dir():
        previous = _newest_before(versions, store, previous)
    versions.point(None if previous is None else previous.key)
    journal.write(store, entry.at(Phase.ROLLED_BACK))
    logger.warning(
        "%s went back from %s to %s: %s", entry.name, entry.candidate.version,
        "the shipped version" if previous is None else previous.version, entry.reason,
    )  # fmt: skip
