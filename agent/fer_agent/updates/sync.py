"""`fer-agent models sync`: from the repository to whole, verified versions that run.

The order makes a power cut harmless: metadata is verified before anything it names is fetched,
content is verified before it is staged, and a staged version is whole before activation sees it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer_agent import __version__
from fer_agent.errors import (
    AgentError,
    ConfigError,
    ModelFileError,
    TemporaryError,
    UsageError,
    VerificationError,
)
from fer_agent.models.manifest import read_any_manifest
from fer_agent.models.store import verify_file
from fer_agent.system import durable
from fer_agent.updates import detector_file, report
from fer_agent.updates.cache import FOLDER as CACHE_FOLDER
from fer_agent.updates.cache import ContentCache, place
from fer_agent.updates.catalog import Catalog, by_number
from fer_agent.updates.connection import Route
from fer_agent.updates.fetch import Fetcher
from fer_agent.updates.report import Failure, ModelReport, SyncReport
from fer_agent.updates.switch import Switch
from fer_agent.updates.trusted_time import TrustedTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_agent.config.model import AgentConfig
    from fer_agent.updates.catalog import Choice, ListedTarget, Release
    from fer_agent.updates.client import Repository
    from fer_agent.updates.report import Outcome
    from fer_agent.updates.switch import Installed

    Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)

TUF_FOLDER: Final = ".tuf"
_STAGED: Final = "sync-"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a sync is to do.

    Attributes:
        names: models to bring up to date; they must be in the repository.
        if_there: more of them, left out when the repository has none.
        dry_run: only look.
        activate: switch to what was fetched.
        progress: told bytes done and bytes in all of what is fetched.
    """

    names: tuple[str, ...] = ()
    if_there: tuple[str, ...] = ()
    dry_run: bool = False
    activate: bool = True
    progress: Progress = lambda _done, _all: None


@dataclass(frozen=True, slots=True)
class ModelSync:
    """Brings one store up to date with one repository.

    Attributes:
        store: the model store's folder.
        repository: where models come from.
        switch: puts them to work.
        clock: what time it is at least.
        limit_bytes: largest version that is fetched.
        agent_version: what this agent can run is measured by it.
    """

    store: Path
    repository: Repository
    switch: Switch
    clock: TrustedTime
    limit_bytes: int = 100_000_000
    agent_version: str = __version__

    def run(self, wish: Wish) -> SyncReport:
        """Fetch, verify and activate what is new; write down how it went.

        Returns:
            What it found and did for each model.

        Raises:
            SyncError: a failure, with the report of what went well beside it.
            TemporaryError: another sync is under way.
            ConfigError: the store cannot be written.
        """
        try:
            lock = self.store / report.STATE_FOLDER / "sync.lock"
            with durable.locked(lock, wait=False) as held:
                if not held:
                    raise TemporaryError(
                        f"another sync is under way in {self.store}",
                        remedy="wait until it has ended, and try again",
                    )
                return self._run(wish)
        except OSError as error:
            raise durable.refused(error, self.store) from error

    def _run(self, wish: Wish) -> SyncReport:
        self._clean_up()
        session = _Session()
        try:
            self._bring_in(wish, session)
        except AgentError as error:
            session.failures.append(error)
        done = self._report(session)
        if not wish.dry_run:
            report.write(self.store, done)
        if session.failures:
            raise SyncError(session.failures[0], done) from session.failures[0]
        return done

    def _bring_in(self, wish: Wish, session: _Session) -> None:
        now = self.clock.read()
        catalog = Catalog(self.repository.refresh(now))
        session.trusted_time = now
        self.clock.keep(now)
        for name in self._wanted(wish, catalog):
            try:
                session.models.append(self._model(name, catalog, wish, session))
            except AgentError as error:
                # One model's fault keeps the others from nothing.
                logger.warning("%s: %s", name, error)
                session.failures.append(error)
                outcome: Outcome = "refused" if isinstance(error, VerificationError) else "failed"
                session.models.append(self._told(name, catalog, outcome, str(error)))
        if not wish.dry_run and not session.failures:
            # What was fetched lies in the store now; the detector may have been by its first start.
            cache = ContentCache(self.store / CACHE_FOLDER, self.repository.fetcher)
            cache.keep_only({detector_file.YUNET.sha256})

    def _wanted(self, wish: Wish, catalog: Catalog) -> list[str]:
        offered = catalog.names()
        if unknown := sorted(set(wish.names) - set(offered)):
            raise UsageError(
                f"{self.repository.url} has no model {', '.join(unknown)}",
                remedy="it has: " + (", ".join(offered) or "none"),
            )
        return sorted({*wish.names, *(set(wish.if_there) & set(offered))})

    def _model(self, name: str, catalog: Catalog, wish: Wish, session: _Session) -> ModelReport:
        """Bring one model up to date."""
        choice = catalog.choose(name, self.agent_version)
        here = self.switch.installed(name)
        release = choice.newest
        if release is None or not _is_due(release, here, catalog):
            return self._nothing_to_do(name, catalog, choice, here)
        if reason := self.switch.refused_before(release):
            session.standing.append(f"{name} {release.version} was refused: {reason}")
            return self._told(name, catalog, "refused", reason)
        if release.size_bytes > self.limit_bytes:
            raise VerificationError(
                f"{name} {release.version} has {release.size_bytes} bytes, "
                f"more than {self.limit_bytes}",
                remedy="raise `models.limit_bytes` if that is right",
            )
        if wish.dry_run:
            return self._told(name, catalog, "available")
        logger.info("fetching %s %s", name, release.version)
        with self._staged(release, wish.progress) as folder:
            if not wish.activate:
                self.switch.install(folder, release)
                return self._told(name, catalog, "installed")
            self.switch.activate(folder, release)
        return self._told(name, catalog, "updated")

    def _nothing_to_do(
        self, name: str, catalog: Catalog, choice: Choice, here: Installed | None
    ) -> ModelReport:
        if choice.too_new is None:
            return self._told(name, catalog, "current")
        logger.warning("%s", choice.too_new)
        if choice.newest is None and here is None:
            raise VerificationError(
                f"no version of {name} runs on fer-agent {self.agent_version}: {choice.too_new}",
                remedy="upgrade fer-agent, or publish an older version as well",
            )
        return self._told(name, catalog, "too-new", str(choice.too_new))

    def _told(self, name: str, catalog: Catalog, outcome: Outcome, reason: str = "") -> ModelReport:
        here = self.switch.installed(name)
        offered = catalog.versions(name)
        return ModelReport(
            name=name,
            current=None if here is None else here.version,
            available=offered[0] if offered else None,
            outcome=outcome,
            reason=reason,
        )

    @contextlib.contextmanager
    def _staged(self, release: Release, progress: Progress) -> Iterator[Path]:
        """Fetch a version into a folder of its own, whole and verified."""
        cache = ContentCache(self.store / CACHE_FOLDER, self.repository.fetcher)
        staging = self.store / ".staging"
        staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_STAGED, dir=staging))
        folder.chmod(0o755)
        try:
            before = 0
            for file, target in release.files.items():
                share = partial(_share, progress, before, release.size_bytes)
                content = self._stored(release, file, target) or cache.get(
                    self.repository.wanted(target), share
                )
                place(content, folder / file)
                before += target.size_bytes
            if read_any_manifest(folder / "manifest.json") != release.manifest:
                raise VerificationError(
                    f"the manifest of {release.name} {release.version} differs from the one in "
                    "the repository's metadata",
                    remedy="tell whoever publishes the models; what runs here stays as it is",
                )
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _stored(self, release: Release, file: str, target: ListedTarget) -> Path | None:
        """Return a file of a version that lies in the store already; None when it does not."""
        path = self.switch.folder(release) / file
        try:
            verify_file(path, sha256=target.sha256, size_bytes=target.size_bytes)
        except ModelFileError:
            return None
        return path

    def _clean_up(self) -> None:
        """Remove what a sync left behind that a power cut ended."""
        for folder in (self.store / ".staging").glob(f"{_STAGED}*"):
            shutil.rmtree(folder, ignore_errors=True)

    def _report(self, session: _Session) -> SyncReport:
        before, now = report.read(self.store), datetime.now(timezone.utc).replace(microsecond=0)
        failure = None if before is None else before.last_failure
        if session.failures:
            error = session.failures[0]
            failure = Failure(
                at=now, text=str(error), remedy=error.remedy, exit_code=error.exit_code
            )
        return SyncReport(
            at=now,
            repository=self.repository.url,
            trusted_time=session.trusted_time,
            models=tuple(session.models) or (before.models if before is not None else ()),
            ok=not session.failures,
            last_failure=failure,
            alert=_alert(session, "" if before is None else before.alert),
        )


class SyncError(AgentError):
    """A sync failed; what went well all the same is in its report.

    Attributes:
        report: what was found and done.
    """

    def __init__(self, error: AgentError, done: SyncReport) -> None:
        super().__init__(str(error), remedy=error.remedy)
        self.report = done
        self.exit_code = error.exit_code  # type: ignore[misc]  # that of what happened


@dataclass(slots=True)
class _Session:
    """What one sync has found so far."""

    trusted_time: datetime | None = None
    models: list[ModelReport] = field(default_factory=list)
    failures: list[AgentError] = field(default_factory=list)
    standing: list[str] = field(default_factory=list)
    """Refusals of earlier that are still of the newest version."""


def configured(config: AgentConfig, store: Path) -> ModelSync:
    """Make a sync as the configuration says.

    Raises:
        ConfigError: no repository or no root file is configured, or the store is somebody else's.
    """
    from fer_agent.updates.client import Repository  # noqa: PLC0415 - loads python-tuf

    models = config.models
    if models.repository is None or models.root_file is None:
        missing = "repository" if models.repository is None else "root_file"
        raise ConfigError(
            f"`models.{missing}` is not set, so there is nothing to fetch models from",
            remedy="set `models.repository` to the address and `models.root_file` to the "
            "root.json that whoever publishes the models gave you",
        )
    _refuse_anothers(store)
    repository = Repository(models.repository, models.root_file, store / TUF_FOLDER, web(config))
    return ModelSync(
        store=store,
        repository=repository,
        switch=Switch.of(config, store),
        clock=TrustedTime(store / report.STATE_FOLDER / "trusted-time.json"),
        limit_bytes=models.limit_bytes,
    )


def web(config: AgentConfig) -> Fetcher:
    """Make what fetches from the web as the configuration says."""
    return Fetcher(Route(config.models.proxy, config.models.ca_file))


def wished(config: AgentConfig, store: Path) -> tuple[str, ...]:
    """Return the names of the models that this device keeps up to date."""
    names = {config.classifier.model, *config.models.names}
    if config.detector.backend != "haar" and config.detector.model_file is None:
        names.add(detector_file.NAME)
    return tuple(sorted(names | Switch.of(config, store).names()))


def is_due(config: AgentConfig, store: Path) -> bool:
    """Tell whether a timer's sync should run: the last good one is old enough, or was not good."""
    last = report.read(store)
    if config.models.repository is None:
        return False
    if last is None or not last.ok or last.repository != config.models.repository:
        return True
    age = datetime.now(timezone.utc) - last.at
    return not timedelta(0) <= age < timedelta(hours=config.models.interval_hours)


def _is_due(release: Release, here: Installed | None, catalog: Catalog) -> bool:
    """Tell whether a version takes the place of what is here."""
    if here is None:
        return True
    if (release.version, release.manifest_sha256) == (here.version, here.manifest_sha256):
        return False
    if by_number(release.version) > by_number(here.version):
        return True
    # What was downloaded and is listed no more was retired, or exists with other content now.
    listed = here.version in catalog.versions(release.name)
    return here.from_store and (not listed or release.version == here.version)


def _alert(session: _Session, before: str) -> str:
    """Say what stands: an update that was refused, until one is taken or nothing is wrong."""
    for error in session.failures:
        if isinstance(error, VerificationError):
            return f"{error}; {error.remedy}"
    if session.failures:
        return before
    return "; ".join(session.standing)


def _share(progress: Progress, before: int, size_bytes: int, done: int, _all: int) -> None:
    """Tell one file's progress as its share of all."""
    progress(before + done, size_bytes)


def _refuse_anothers(store: Path) -> None:
    """Leave a service's store to the service's user: what root makes there it could not change."""
    owner = store.stat().st_uid if store.exists() else 0
    if os.geteuid() == 0 and owner != 0:
        raise ConfigError(
            f"{store} belongs to user {owner}, who could not change what root writes there",
            remedy=f"run it as that user: sudo -u '#{owner}' fer-agent models sync",
        )
