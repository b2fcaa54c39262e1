"""`fer-agent models sync`: fetches new versions, verifies them, and switches to them.

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
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer_agent import __version__
from fer_agent.errors import AgentError, ConfigError, ModelFileError, UsageError, VerificationError
from fer_agent.models.manifest import by_number, read_any_manifest
from fer_agent.models.store import verify_file
from fer_agent.system import durable
from fer_agent.updates import detector_file, report
from fer_agent.updates.activation.journal import STATE_FOLDER
from fer_agent.updates.activation.versions import in_use
from fer_agent.updates.cache import FOLDER as CACHE_FOLDER
from fer_agent.updates.cache import ContentCache, place
from fer_agent.updates.catalog import Catalog
from fer_agent.updates.connection import ProxyAndTls
from fer_agent.updates.fetch import Fetcher
from fer_agent.updates.report import Failure, ModelReport, SyncReport
from fer_agent.updates.switch import Switch
from fer_agent.updates.trusted_time import TrustedTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_agent.config.model import AgentConfig
    from fer_agent.updates.activation.journal import ModelVersion
    from fer_agent.updates.catalog import CatalogRelease, ListedTarget, ReleaseChoice
    from fer_agent.updates.client import Repository
    from fer_agent.updates.report import Outcome

    Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)

TUF_FOLDER: Final = ".tuf"
_STAGED: Final = "sync-"


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The task of one sync.

    Attributes:
        names: models to bring up to date; they must be in the repository.
        optional_names: more of them, left out when the repository has none.
        dry_run: fetch nothing and change nothing.
        activate: switch to the fetched versions.
        progress: called with bytes done and bytes in all of a version.
    """

    names: tuple[str, ...] = ()
    optional_names: tuple[str, ...] = ()
    dry_run: bool = False
    activate: bool = True
    progress: Progress = lambda _done, _all: None


@dataclass(frozen=True, slots=True)
class ModelSync:
    """Brings one store up to date with one repository.

    Attributes:
        store: the model store's folder.
        repository: the source of the models.
        switch: switches to them.
        clock: the trusted time.
        limit_bytes: largest version that is fetched.
        agent_version: this agent's version, which decides what it can run.
    """

    store: Path
    repository: Repository
    switch: Switch
    clock: TrustedTime
    limit_bytes: int = 100_000_000
    agent_version: str = __version__

    def run(self, request: SyncRequest) -> SyncReport:
        """Fetch, verify and activate new versions; write the report.

        Returns:
            The outcome for each model.

        Raises:
            SyncError: a failure, with the report on all models.
            TemporaryError: another sync is under way.
            ConfigError: the store cannot be written.
        """
        lock = self.store / STATE_FOLDER / "sync.lock"
        with durable.one_at_a_time(lock, self.store, "another sync"):
            for folder in (self.store / ".staging").glob(f"{_STAGED}*"):  # after a power cut
                shutil.rmtree(folder, ignore_errors=True)
            session = _Session()
            try:
                self._bring_in(request, session)
            except AgentError as error:
                session.failures.append(error)
            done = self._report(session)
            if not request.dry_run:
                report.write(self.store, done)
        if session.failures:
            raise SyncError(session.failures[0], done) from session.failures[0]
        return done

    def _bring_in(self, request: SyncRequest, session: _Session) -> None:
        now = self.clock.read()
        catalog = Catalog(self.repository.refresh(now))
        session.trusted_time = now
        self.clock.keep(now)
        for name in self._wanted(request, catalog):
            try:
                session.models.append(self._model(name, catalog, request, session))
            except AgentError as error:
                # The others go on.
                logger.warning("%s: %s", name, error)
                session.failures.append(error)
                outcome: Outcome = "refused" if isinstance(error, VerificationError) else "failed"
                session.models.append(self._outcome(name, catalog, outcome, str(error)))
        if not request.dry_run and not session.failures:
            # Fetched versions are in the store now; the detector may have come at a first start.
            cache = ContentCache(self.store / CACHE_FOLDER, self.repository.fetcher)
            cache.keep_only({detector_file.YUNET.sha256})

    def _wanted(self, request: SyncRequest, catalog: Catalog) -> list[str]:
        offered = catalog.names()
        if unknown := sorted(set(request.names) - set(offered)):
            raise UsageError(
                f"{self.repository.url} has no model {', '.join(unknown)}",
                remedy="it has: " + (", ".join(offered) or "none"),
            )
        return sorted({*request.names, *(set(request.optional_names) & set(offered))})

    def _model(
        self, name: str, catalog: Catalog, request: SyncRequest, session: _Session
    ) -> ModelReport:
        """Bring one model up to date."""
        choice = catalog.choose(name, self.agent_version)
        here = in_use(self.store, name)
        release = choice.newest
        if release is None or not self._is_due(release, here, catalog):
            return self._nothing_to_do(name, catalog, choice, here)
        if reason := self.switch.rejected_before(release):
            session.standing.append(f"{name} {release.version} was refused: {reason}")
            return self._outcome(name, catalog, "refused", reason)
        if release.size_bytes > self.limit_bytes:
            raise VerificationError(
                f"{name} {release.version} has {release.size_bytes} bytes, "
                f"more than {self.limit_bytes}",
                remedy="raise `models.limit_bytes` if that is right",
            )
        if request.dry_run:
            return self._outcome(name, catalog, "available")
        logger.info("fetching %s %s", name, release.version)
        with self._staged(release, request.progress) as folder:
            if not request.activate:
                self.switch.install(folder, release)
                return self._outcome(name, catalog, "installed")
            self.switch.activate(folder, release)
        return self._outcome(name, catalog, "updated")

    def _is_due(self, release: CatalogRelease, here: ModelVersion | None, catalog: Catalog) -> bool:
        """Return whether a version replaces the one here."""
        if here is None or by_number(release.version) > by_number(here.version):
            return True
        if release.version == here.version and release.manifest_sha256 == here.manifest_sha256:
            return False
        # A downloaded version that is no longer listed was retired, or has other content now.
        gone = here.version not in catalog.versions(release.name)
        return self.switch.downloaded(release.name) and (gone or release.version == here.version)

    def _nothing_to_do(
        self, name: str, catalog: Catalog, choice: ReleaseChoice, here: ModelVersion | None
    ) -> ModelReport:
        if choice.too_new is None:
            return self._outcome(name, catalog, "current")
        logger.warning("%s", choice.too_new)
        if choice.newest is None and here is None:
            raise VerificationError(
                f"no version of {name} runs on fer-agent {self.agent_version}: {choice.too_new}",
                remedy="upgrade fer-agent, or publish an older version as well",
            )
        return self._outcome(name, catalog, "too-new", str(choice.too_new))

    def _outcome(
        self, name: str, catalog: Catalog, outcome: Outcome, reason: str = ""
    ) -> ModelReport:
        here = in_use(self.store, name)
        offered = catalog.versions(name)
        return ModelReport(
            name=name,
            current=None if here is None else here.version,
            available=offered[0] if offered else None,
            outcome=outcome,
            reason=reason,
        )

    @contextlib.contextmanager
    def _staged(self, release: CatalogRelease, progress: Progress) -> Iterator[Path]:
        """Fetch a version into a temporary folder, whole and verified."""
        cache = ContentCache(self.store / CACHE_FOLDER, self.repository.fetcher)
        staging = self.store / ".staging"
        staging.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_STAGED, dir=staging))
        folder.chmod(0o755)
        before = 0

        def share(done: int, _all: int) -> None:
            progress(before + done, release.size_bytes)

        try:
            for file, target in release.files.items():
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

    def _stored(self, release: CatalogRelease, file: str, target: ListedTarget) -> Path | None:
        """Return a file of a version that is in the store already; None when it is not."""
        path = self.switch.folder(release) / file
        try:
            verify_file(path, sha256=target.sha256, size_bytes=target.size_bytes)
        except ModelFileError:
            return None
        return path

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
    """A sync failed, perhaps in part.

    Attributes:
        report: the outcome for each model.
    """

    def __init__(self, error: AgentError, done: SyncReport) -> None:
        super().__init__(str(error), remedy=error.remedy)
        self.report = done
        self.exit_code = error.exit_code  # type: ignore[misc]  # of the first failure


@dataclass(slots=True)
class _Session:
    """The results of one sync so far."""

    trusted_time: datetime | None = None
    models: list[ModelReport] = field(default_factory=list)
    failures: list[AgentError] = field(default_factory=list)
    standing: list[str] = field(default_factory=list)
    """Newest versions that were rejected earlier, with the reasons."""


def configured(config: AgentConfig, store: Path) -> ModelSync:
    """Make a sync as the configuration says.

    Raises:
        ConfigError: no repository or no root file is configured, or the store is another user's.
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
        clock=TrustedTime(store / STATE_FOLDER / "trusted-time.json"),
        limit_bytes=models.limit_bytes,
    )


def web(config: AgentConfig) -> Fetcher:
    """Make the fetcher that the configuration asks for."""
    return Fetcher(ProxyAndTls(config.models.proxy, config.models.ca_file))


def default_models(config: AgentConfig, store: Path) -> tuple[str, ...]:
    """Return the names of the models that this device keeps up to date."""
    names = {config.classifier.model, *config.models.names}
    if config.detector.backend != "haar" and config.detector.model_file is None:
        names.add(detector_file.NAME)
    return tuple(sorted(names | Switch.of(config, store).names()))


def is_due(config: AgentConfig, store: Path) -> bool:
    """Return whether a timer's sync should run: the last one failed or is old enough."""
    last = report.read(store)
    if config.models.repository is None:
        return False
    if last is None or not last.ok or last.repository != config.models.repository:
        return True
    age = datetime.now(timezone.utc) - last.at
    return not timedelta(0) <= age < timedelta(hours=config.models.interval_hours)


def _alert(session: _Session, before: str) -> str:
    """Return the alert: a rejected update, until one is taken or nothing is wrong."""
    for error in session.failures:
        if isinstance(error, VerificationError):
            return f"{error}; {error.remedy}"
    if session.failures:
        return before
    return "; ".join(session.standing)


def _refuse_anothers(store: Path) -> None:
    """Refuse to write as root in another user's store: that user could not change it."""
    owner = store.stat().st_uid if store.exists() else 0
    if os.geteuid() == 0 and owner != 0:
        raise ConfigError(
            f"{store} belongs to user {owner}, who could not change what root writes there",
            remedy=f"run it as that user: sudo -u '#{owner}' fer-agent models sync",
        )
