"""Bringing a version in: verified, moved into the store, tried, measured, switched to.

Two locks in `.state/`: `activation.lock` is held from the first step to the last, so that there is
one activation at a time; `journal.lock` for the moment in which journal, refusals or link change,
so that a running agent can confirm or roll back while a trial goes on.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from fer_agent.errors import (
    AgentError,
    ModelError,
    TemporaryError,
    UsageError,
    VerificationError,
)
from fer_agent.measure import record, renewal
from fer_agent.measure.fingerprint import model_sha256
from fer_agent.measure.resolve import resolve
from fer_agent.models.manifest import Manifest, read_manifest
from fer_agent.models.store import StoredModel, shipped_folder
from fer_agent.system import durable
from fer_agent.updates.activation import journal, state
from fer_agent.updates.activation.journal import Entry, Phase
from fer_agent.updates.activation.probation import alone
from fer_agent.updates.activation.state import Refusal
from fer_agent.updates.activation.trial import Trial, TrialError
from fer_agent.updates.activation.versions import Keep, Versions, build_of, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fer_agent.config.model import AgentConfig
    from fer_agent.inference.setting import Setting
    from fer_agent.updates.activation.journal import Build

logger = logging.getLogger(__name__)


class RefusedBeforeError(VerificationError):
    """This version did not prove itself earlier and is not tried again by itself."""


@dataclass(frozen=True, slots=True)
class Change:
    """Brings versions into one store.

    Attributes:
        store: the model store's folder.
        trial: what a version has to pass.
        keep: how many old versions stay.
        setting: how a version would run on this board, for its trial; None leaves that to `trial`.
        measure: measures how a tried version runs fastest on this board, and tells whether it did;
            its failure is no reason against the version.
        on_step: told each step's name once it is on the disk.
    """

    store: Path
    trial: Trial = field(default_factory=Trial)
    keep: Keep = field(default_factory=Keep)
    setting: Callable[[Manifest], Setting] | None = None
    measure: Callable[[StoredModel], bool] = lambda _model: False
    on_step: Callable[[str], None] = lambda _step: None

    def activate_staged(self, staged: Path, *, name: str) -> Build:
        """Bring in a downloaded version and switch to it.

        Args:
            staged: a folder on the store's disk with a manifest and the files it names. It is
                moved into the store; a version that fails before its trial stays where it is.
            name: the model's name; its manifest must give the same.

        Returns:
            The version; a running agent takes it over within a second or two.

        Raises:
            RefusedBeforeError: this version was refused earlier.
            VerificationError: a hash or the manifest is wrong, or the trial was not passed; the
                latter is remembered.
            TemporaryError: another activation is under way, or the disk is full.
            ConfigError: the store cannot be written, or a folder made by hand is in the way.
        """
        with self._one_at_a_time():
            versions = Versions(self.store, name)
            versions.refuse_folder_by_hand()
            build = self._verified(staged, name)
            if known := state.refusals(self.store).of(name, build):
                raise RefusedBeforeError(
                    f"{name} {build.version} was refused before: {known.reason}",
                    remedy=f"publish a new version, or try this one again with "
                    f"`fer-agent models activate {name} {build.version}`",
                )
            versions.adopt(staged, build)
            self.on_step("adopted")
            self._try_and_switch(versions, build)
            return build

    def activate_installed(self, name: str, version: str | None = None) -> Build:
        """Switch to a version that is in the store or was shipped, at a person's wish.

        A refusal of it is forgotten once it has passed its trial again.

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
            refused = state.refusals(self.store)
            for key in versions.installed():
                wanted = version == key.partition("-")[0]
                if wanted or (version is None and not refused.has(name, key)):
                    build = self._verified(versions.folder(key), name)
                    self._try_and_switch(versions, build)
                    return build
            shipped = build_of(shipped_folder() / name)
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

    def _verified(self, folder: Path, name: str) -> Build:
        try:
            build = verify(folder, name)
        except ModelError as error:
            raise VerificationError(str(error), remedy=error.remedy) from error
        self.on_step("verified")
        return build

    def _try_and_switch(self, versions: Versions, build: Build) -> None:
        """Try a version that lies in the store, and let the link name it."""
        if versions.linked() == build.key:
            logger.info("%s %s runs already", versions.name, build.version)
            return
        folder = versions.folder(build.key)
        try:
            self._trial_of(folder).run(folder, self._running(versions))
        except TrialError as error:
            with alone(self.store):
                refusal = Refusal(
                    name=versions.name, build=build, reason=str(error), at=journal.now()
                )
                state.refuse(self.store, refusal)
            self.on_step("refused")
            raise
        self.on_step("tried")
        self._measure(folder)
        with alone(self.store):
            state.forgive(self.store, versions.name, build)
            journal.write(self.store, self._entry(versions, build))
            self.on_step("switched")
            versions.point(build.key)
            self.on_step("linked")
        logger.info("switched %s to %s", versions.name, build.version)
        self._prune(versions)

    def _trial_of(self, folder: Path) -> Trial:
        """Return the trial of one version: as it would run, which may be otherwise than others."""
        if self.setting is None:
            return self.trial
        setting = self.setting(read_manifest(folder / "manifest.json"))
        return replace(self.trial, precision=setting.precision, threads=setting.threads)

    def _measure(self, folder: Path) -> None:
        """Measure a version before it takes over; one that cannot be measured runs plain."""
        try:
            manifest = read_manifest(folder / "manifest.json")
            measured = self.measure(StoredModel(folder=folder, manifest=manifest))
        except AgentError as error:
            logger.warning("%s was not measured and runs plain: %s", folder.name, error)
        else:
            if measured:
                self.on_step("measured")

    def _entry(self, versions: Versions, build: Build) -> Entry:
        """Begin the journal of a switch; an unproven version is none to go back to."""
        linked = versions.linked()
        before = journal.read(self.store, versions.name)
        before = None if before is None else before.about(linked)
        previous = versions.current()
        if before is not None and before.unconfirmed:
            previous = before.previous
            before = before.model_copy(update={"replaces": None})
        else:
            before = None
        return Entry(
            name=versions.name, phase=Phase.SWITCHED, candidate=build, previous=previous,
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

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Hold the lock of activations; what the disk refuses becomes an error of ours."""
        lock = self.store / journal.STATE_FOLDER / "activation.lock"
        try:
            with durable.locked(lock, wait=False) as held:
                if not held:
                    raise TemporaryError(
                        f"another activation is under way in {self.store}",
                        remedy="wait until it has ended, and try again",
                    )
                yield
        except OSError as error:
            raise durable.refused(error, self.store) from error


def configured(config: AgentConfig) -> Change:
    """Make the change that a configuration asks for: its store, its limits, what it keeps."""
    store = config.store
    return Change(
        store=store,
        trial=Trial(slowdown=config.models.slowdown_limit),
        keep=Keep(versions=config.models.keep_versions, bytes=config.models.keep_bytes),
        setting=partial(resolve, config.classifier, store=store),
        measure=partial(renewal.for_switch, config),
    )
