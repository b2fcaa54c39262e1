"""A change of model: a version is verified, moved into the store, tested, measured, switched to.

Two locks in `.state/`: `activation.lock` is held from the first step to the last, so that there is
one activation at a time; `journal.lock` for the moment in which journal, rejected versions or link
change, so that a running agent can confirm or roll back during a self-test.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from fer_agent.config.model import AgentConfig
from fer_agent.errors import AgentError, ModelError, UsageError, VerificationError
from fer_agent.inference.setting import Setting
from fer_agent.measure import record, renewal
from fer_agent.measure.fingerprint import model_sha256
from fer_agent.measure.resolve import resolve
from fer_agent.models.manifest import Manifest, read_manifest
from fer_agent.models.store import StoredModel, read_model, shipped_folder
from fer_agent.system import durable
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.journal import JournalEntry, ModelVersion, Phase
from fer_agent.updates.activation.pending import alone
from fer_agent.updates.activation.self_test import SelfTest, SelfTestError
from fer_agent.updates.activation.state import RejectedVersion
from fer_agent.updates.activation.versions import Keep, Versions, verify, version_of

logger = logging.getLogger(__name__)


class RejectedBeforeError(VerificationError):
    """This version was rejected earlier and is not activated again by a sync."""


@dataclass(frozen=True, slots=True)
class ModelChange:
    """Brings versions into one store.

    Attributes:
        store: the model store's folder.
        self_test: the test of each new version.
        keep: limits of old versions.
        setting: returns a version's setting on this board; None leaves `self_test` as it is.
        measure: measures a version's fastest setting and returns whether it did; its failure is no
            reason against the version.
        on_step: called with each step's name once it is on the disk.
    """

    store: Path
    self_test: SelfTest = field(default_factory=SelfTest)
    keep: Keep = field(default_factory=Keep)
    setting: Callable[[Manifest], Setting] | None = None
    measure: Callable[[StoredModel], bool] = lambda _model: False
    on_step: Callable[[str], None] = lambda _step: None

    def activate_staged(self, staged: Path, *, name: str) -> ModelVersion:
        """Bring in a downloaded version and switch to it.

        Args:
            staged: a folder on the store's disk with a manifest and the files it names. It is
                moved into the store, unless it fails before its self-test.
            name: the model's name; its manifest must give the same.

        Returns:
            The version; a running agent takes it over within a second or two.

        Raises:
            RejectedBeforeError: this version was rejected earlier.
            VerificationError: a hash or the manifest is wrong, or the self-test failed, which is
                remembered.
            TemporaryError: another activation is under way, or the disk is full.
            ConfigError: the store cannot be written, or a folder made by hand is in the way.
        """
        with self._one_at_a_time():
            versions = Versions(self.store, name)
            versions.refuse_folder_by_hand()
            candidate = self._verified(staged, name)
            if known := state.rejected(self.store).of(name, candidate):
                raise RejectedBeforeError(
                    f"{name} {candidate.version} was refused before: {known.reason}",
                    remedy=f"publish a new version, or try this one again with "
                    f"`fer-agent models activate {name} {candidate.version}`",
                )
            versions.adopt(staged, candidate)
            self.on_step("adopted")
            self._test_and_switch(versions, candidate)
            return candidate

    def activate_installed(self, name: str, version: str | None = None) -> ModelVersion:
        """Switch to a version that is in the store or was shipped, at a person's request.

        A rejected one is unblocked once it has passed its self-test.

        Args:
            name: the model's name.
            version: its version; None takes the newest in the store.

        Raises:
            UsageError: no such version is there.
            VerificationError, TemporaryError, ConfigError: as in `activate_staged`.
        """
        with self._one_at_a_time():
            versions = Versions(self.store, name)
            versions.refuse_folder_by_hand()
            refused = state.rejected(self.store)
            for key in versions.installed():
                wanted = version == key.partition("-")[0]
                if wanted or (version is None and not refused.has(name, key)):
                    candidate = self._verified(versions.folder(key), name)
                    self._test_and_switch(versions, candidate)
                    return candidate
            shipped = version_of(shipped_folder() / name)
            if shipped is None or version != shipped.version:
                have = [key.partition("-")[0] for key in versions.installed()]
                have += [f"{shipped.version} (shipped)"] if shipped else []
                raise UsageError(
                    f"no version {version or ''} of {name} in {self.store}".replace("  ", " "),
                    remedy="there are: " + (", ".join(have) or "none; run `fer-agent models sync`"),
                )
            with alone(self.store):
                journal.forget(self.store, name)
                versions.point(None)
            return shipped

    def _verified(self, folder: Path, name: str) -> ModelVersion:
        try:
            version = verify(folder, name)
        except ModelError as error:
            raise VerificationError(str(error), remedy=error.remedy) from error
        self.on_step("verified")
        return version

    def _test_and_switch(self, versions: Versions, candidate: ModelVersion) -> None:
        """Test a version in the store, and point the link at it."""
        if versions.linked() == candidate.key:
            logger.info("%s %s runs already", versions.name, candidate.version)
            return
        folder = versions.folder(candidate.key)
        try:
            self._self_test_of(folder).run(folder, self._running(versions))
        except SelfTestError as error:
            with alone(self.store):
                rejected = RejectedVersion(name=versions.name, build=candidate, reason=str(error))
                state.reject(self.store, rejected)
            self.on_step("refused")
            raise
        self.on_step("tried")
        self._measure(folder)
        with alone(self.store):
            state.unblock(self.store, versions.name, candidate)
            journal.write(self.store, self._entry(versions, candidate))
            self.on_step("switched")
            versions.point(candidate.key)
            self.on_step("linked")
        logger.info("switched %s to %s", versions.name, candidate.version)
        self._prune(versions)

    def _self_test_of(self, folder: Path) -> SelfTest:
        """Return the self-test of one version, in the setting in which it would run."""
        if self.setting is None:
            return self.self_test
        setting = self.setting(read_manifest(folder / "manifest.json"))
        return replace(self.self_test, precision=setting.precision, threads=setting.threads)

    def _measure(self, folder: Path) -> None:
        """Measure a version before it takes over; one that cannot be measured runs plain."""
        try:
            measured = self.measure(read_model(folder))
        except AgentError as error:
            logger.warning("%s was not measured and runs plain: %s", folder.name, error)
        else:
            if measured:
                self.on_step("measured")

    def _entry(self, versions: Versions, candidate: ModelVersion) -> JournalEntry:
        """Return the journal of a switch, which never goes back to an unconfirmed version."""
        linked = versions.linked()
        before = journal.read(self.store, versions.name)
        before = None if before is None else before.about(linked)
        previous = versions.current()
        if before is not None and before.unconfirmed:
            previous = before.previous
            before = before.model_copy(update={"replaces": None})
        else:
            before = None
        return JournalEntry(
            name=versions.name, phase=Phase.SWITCHED, candidate=candidate, previous=previous,
            since=journal.now(), replaces=before,
        )  # fmt: skip

    def _running(self, versions: Versions) -> Path | None:
        """Return the folder of the version to compare with: the linked one, else the shipped."""
        key = versions.linked()
        folder = shipped_folder() / versions.name if key is None else versions.folder(key)
        return folder if (folder / "manifest.json").is_file() else None

    def _prune(self, versions: Versions) -> None:
        entry = journal.read(self.store, versions.name)
        needed = {versions.linked(), entry and entry.candidate.key}
        if entry is not None and entry.previous is not None:
            needed.add(entry.previous.key)
        for key in versions.prune(self.keep, {key for key in needed if key}):
            logger.info("removed %s %s", versions.name, key)
        folders = [versions.folder(key) for key in versions.installed()]
        folders.append(shipped_folder() / versions.name)
        hashes = set()
        for folder in folders:
            with contextlib.suppress(ModelError):
                hashes.add(model_sha256(read_manifest(folder / "manifest.json")))
        record.prune(self.store, versions.name, hashes)
        self.on_step("pruned")

    def _one_at_a_time(self) -> AbstractContextManager[None]:
        lock = self.store / journal.STATE_FOLDER / "activation.lock"
        return durable.one_at_a_time(lock, self.store, "another activation")


def configured(config: AgentConfig) -> ModelChange:
    """Make the change that a configuration asks for."""
    store = config.store
    return ModelChange(
        store=store,
        self_test=SelfTest(slowdown=config.models.slowdown_limit),
        keep=Keep(versions=config.models.keep_versions, bytes=config.models.keep_bytes),
        setting=partial(resolve, config.classifier, store=store),
        measure=partial(renewal.for_switch, config),
    )
