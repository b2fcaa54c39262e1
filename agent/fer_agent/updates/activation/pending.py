"""The pending version: resumed or sent back at a start, then confirmed or rolled back.

An agent that runs a pending version holds its lock, which the kernel frees when the agent dies. A
start that finds a pending version and a free lock knows of the death.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_agent.errors import ModelError, UsageError
from fer_agent.models.manifest import by_number
from fer_agent.models.store import StoredModel, find_model, read_model, shipped_folder
from fer_agent.system import durable
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.journal import (
    ClassifierFigures,
    Found,
    JournalEntry,
    ModelVersion,
    Phase,
)
from fer_agent.updates.activation.state import RejectedVersion
from fer_agent.updates.activation.versions import Versions, verify

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def alone(store: Path) -> Iterator[None]:
    """Hold the lock on journal, rejected versions and link, for a moment only."""
    with durable.locked(store / journal.STATE_FOLDER / "journal.lock", wait=True):
        yield


@dataclass(frozen=True, slots=True)
class PendingVersion:
    """A version that this process has locked and watches, until it is confirmed or goes back."""

    store: Path
    entry: JournalEntry
    lock: contextlib.ExitStack

    def confirm(self) -> None:
        """Confirm the version, and release the lock.

        Raises:
            OSError: the store cannot be written.
        """
        with alone(self.store):
            entry = self._current()
            if entry is not None:
                journal.write(self.store, entry.at(Phase.CONFIRMED, replaces=None))
                logger.info("%s %s is confirmed", entry.name, entry.candidate.version)
        self.lock.close()

    def roll_back(self, reason: str) -> None:
        """Go back to the version before, remember the reason, and release the lock.

        Raises:
            OSError: the store cannot be written.
        """
        with alone(self.store):
            entry = self._current()
            if entry is not None:
                _go_back(self.store, entry.at(Phase.ROLLING_BACK, reason=reason, replaces=None))
        self.lock.close()

    def end(self) -> None:
        """Release the lock in order: the version is pending again at the next start."""
        try:
            with alone(self.store):
                entry = self._current()
                if entry is not None:
                    journal.write(self.store, entry.at(Phase.SWITCHED))
        except OSError as error:
            logger.warning("cannot keep the journal of %s: %s", self.entry.name, error)
        self.lock.close()

    def drop(self) -> None:
        """Release the lock on a version that is not linked any more."""
        self.lock.close()

    def _current(self) -> JournalEntry | None:
        """Read the entry again; None when another version was switched to meanwhile."""
        linked = Versions(self.store, self.entry.name).linked()
        entry = journal.read(self.store, self.entry.name)
        entry = None if entry is None else entry.about(linked)
        watched = entry is not None and entry.candidate == self.entry.candidate
        return entry if watched and entry is not None and entry.phase is Phase.PENDING else None


def settle(
    store: Path, name: str, baseline: ClassifierFigures | None = None
) -> PendingVersion | None:
    """Resume or finish a change by its journal, before the linked version is loaded.

    A version whose agent died goes back; a rollback that was cut short is finished.

    Args:
        store: the model store's folder.
        name: the model's name.
        baseline: figures of the version before, where known.

    Returns:
        The linked version, locked; None when it is confirmed, is watched by another agent, or was
        never switched to.

    Raises:
        OSError: the store cannot be written.
    """
    if journal.read(store, name) is None:
        return None
    with contextlib.ExitStack() as lock, alone(store):
        path = journal.path(store, name).with_suffix(".lease")
        watched = not lock.enter_context(durable.locked(path, wait=False))
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
            reason = "the agent died while this version was pending"
            _go_back(store, entry.at(Phase.ROLLING_BACK, reason=reason, replaces=None))
            return None
        entry = entry.at(
            Phase.PENDING,
            boot_id=boot_id,
            reboots=entry.reboots + (found is Found.GO_ON),
            baseline=baseline or entry.baseline,
        )
        journal.write(store, entry)
        logger.info("%s %s is pending", name, entry.candidate.version)
        return PendingVersion(store, entry, lock.pop_all())


def roll_back(store: Path, name: str, reason: str) -> ModelVersion | None:
    """Go back to the version before at a person's request, and reject the one left behind.

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
            _go_back(store, JournalEntry(
                name=name, phase=Phase.ROLLING_BACK, candidate=current, previous=previous,
                since=journal.now(), reason=reason,
            ))  # fmt: skip
    except OSError as error:
        raise durable.refused(error, store) from error
    return versions.current()


def candidates(store: Path, name: str) -> Iterator[StoredModel]:
    """Yield the models that a start may load: the linked, the previous, others, the shipped one.

    A name without a link, as a folder made by hand has, yields one model. Files are not verified.

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
    for key in dict.fromkeys([linked, *previous, *_not_rejected(versions, store)]):
        try:
            model = read_model(versions.folder(key))
        except ModelError as error:
            logger.warning("cannot use %s %s: %s", name, key, error)
        else:
            yield model
    if (shipped_folder() / name / "manifest.json").is_file():
        yield find_model(name)


def _not_rejected(versions: Versions, store: Path) -> list[str]:
    """Return the keys of the versions that may run, newest first."""
    refused = state.rejected(store)
    return [key for key in versions.installed() if not refused.has(versions.name, key)]


def _newest_before(versions: Versions, store: Path, current: ModelVersion) -> ModelVersion | None:
    """Return the newest whole version below the current one; None for the shipped one."""
    for key in _not_rejected(versions, store):
        if by_number(key) < by_number(current.version):
            with contextlib.suppress(ModelError):
                return verify(versions.folder(key), versions.name)
    return None


def _go_back(store: Path, entry: JournalEntry) -> None:
    """Carry out an entry that is `rolling-back`; harmless when repeated."""
    journal.write(store, entry)
    rejected = RejectedVersion(name=entry.name, build=entry.candidate, reason=entry.reason)
    state.reject(store, rejected)
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
