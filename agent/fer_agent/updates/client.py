"""The Update Framework's client: fetches and verifies metadata, and returns its targets.

Only this module imports python-tuf. Source: The Update Framework specification 1.0, section 5.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from securesystemslib.exceptions import StorageError
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
    SlowRetrievalError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from fer_agent.errors import AgentError, ConfigError, UnavailableError, VerificationError
from fer_agent.system import durable
from fer_agent.updates.cache import Wanted
from fer_agent.updates.catalog import METADATA_FOLDER, TARGETS_FOLDER, ListedTarget
from fer_agent.updates.connection import FetchError, SlowError, StatusError, TooLongError
from fer_agent.updates.fetch import Fetcher
from fer_agent.updates.trusted_time import set_reference_time

logger = logging.getLogger(__name__)

_LIMITS: Final = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=0,
    root_max_length=512_000,
    timestamp_max_length=16_384,
    snapshot_max_length=2_000_000,
    targets_max_length=5_000_000,
)
"""Limits in bytes, whatever the metadata itself says."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A signed repository of models as this device knows it.

    Attributes:
        url: its address; `metadata/` and `targets/` are below it.
        root_file: the root metadata that trust begins with.
        folder: keeps verified metadata, which also guards against older ones.
        fetcher: reads from the web.
    """

    url: str
    root_file: Path
    folder: Path
    fetcher: Fetcher

    def refresh(self, now: datetime) -> list[ListedTarget]:
        """Fetch and verify the repository's metadata.

        Args:
            now: the time that expiry is judged against.

        Returns:
            Every target that is signed by the owner's keys.

        Raises:
            VerificationError: a signature, a version or an expiry date is wrong; the metadata
                before it stays.
            UnavailableError: it cannot be reached, or serves no repository.
            ConfigError: the root file cannot be used, or the folder cannot be written.
            TemporaryError: the disk is full.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._translating():
                updater = self._updater(now)
                updater.refresh()
                # The client does not sync its files to the disk.
                durable.sync_tree(self.folder / "root_history")
                durable.sync_tree(self.folder)
                return self._listed()
        except OSError as error:
            raise durable.refused(error, self.folder) from error

    def wanted(self, target: ListedTarget) -> Wanted:
        """Return a target's content with its address; the repository names files by hash."""
        folder, _, file = target.path.rpartition("/")
        base = f"{self.url.rstrip('/')}/{TARGETS_FOLDER}"
        return Wanted(f"{base}/{folder}/{target.sha256}.{file}", target.sha256, target.size_bytes)

    def _updater(self, now: datetime) -> Updater:
        try:
            root = self.root_file.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read the root metadata in {self.root_file}: {error.strerror}",
                remedy="copy root.json from whoever publishes the models there, "
                "and set `models.root_file` to it",
            ) from error
        try:
            updater = Updater(
                str(self.folder),
                f"{self.url.rstrip('/')}/{METADATA_FOLDER}",
                fetcher=_Fetcher(self.fetcher),
                config=replace(_LIMITS),
                bootstrap=root,
            )
        except (RepositoryError, DeserializationError) as error:
            raise ConfigError(
                f"{self.root_file} is no root metadata that is signed as it says: {error}",
                remedy="copy root.json from whoever publishes the models once more",
            ) from error
        set_reference_time(updater, now)
        return updater

    @contextlib.contextmanager
    def _translating(self) -> Iterator[None]:
        """Turn the client's errors into ours."""
        remedy = "try again on another network; if it stays, tell whoever publishes the models"
        try:
            yield
        except ExpiredMetadataError as error:
            raise VerificationError(
                f"the metadata of {self.url} has expired: {error}",
                remedy="whoever publishes must run `fer-train publish refresh`; if they did, "
                "somebody on the way holds the new metadata back",
            ) from error
        except UnsignedMetadataError as error:
            raise VerificationError(
                f"the metadata of {self.url} is not signed by enough of its keys: {error}",
                remedy=remedy,
            ) from error
        except DownloadLengthMismatchError as error:
            raise VerificationError(
                f"{self.url} sends more than its metadata can be: {error}", remedy=remedy
            ) from error
        except DownloadHTTPError as error:
            raise UnavailableError(
                f"{self.url} serves no repository: {error}",
                remedy="check `models.repository`; it is the folder above metadata/ and targets/",
            ) from error
        except DownloadError as error:
            if isinstance(error.__cause__, AgentError):
                raise error.__cause__ from error
            raise UnavailableError(
                f"cannot reach {self.url}: {error}", remedy="check the connection, then try again"
            ) from error
        except RepositoryError as error:
            raise VerificationError(
                f"the metadata of {self.url} does not verify: {error}", remedy=remedy
            ) from error

    def _listed(self) -> list[ListedTarget]:
        """Read the metadata that the client has just verified: it lists no targets itself."""
        try:
            root = Metadata[Root].from_file(str(self.folder / "root.json")).signed
            targets = Metadata[Targets].from_file(str(self.folder / "targets.json")).signed
        except StorageError as error:
            raise OSError(str(error)) from error
        if not root.consistent_snapshot:
            raise VerificationError(
                f"{self.url} does not name its files by hash",
                remedy="publish it with `fer-train publish`",
            )
        listed = []
        for path, target in targets.targets.items():
            if (sha256 := target.hashes.get("sha256")) is None:
                logger.warning("%s is listed without a sha256; it is left out", path)
                continue
            listed.append(ListedTarget(path, sha256, target.length, target.custom))
        return listed


class _Fetcher(FetcherInterface):
    """The client's fetcher, through ours."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Fetch one metadata file whole.

        Raises:
            DownloadError: it failed; the cause is ours.
        """
        try:
            return self._fetcher.read(url, max_length)
        except StatusError as error:
            raise DownloadHTTPError(str(error), error.status) from error
        except TooLongError as error:
            raise DownloadLengthMismatchError(str(error)) from error
        except SlowError as error:
            raise SlowRetrievalError(str(error)) from error
        except FetchError as error:
            raise DownloadError(str(error)) from error

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Fetch in one piece, for a client that does not call `download_bytes`."""
        yield self.download_bytes(url, _LIMITS.targets_max_length)
