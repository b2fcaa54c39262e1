"""The versions of one model in the store, and the link to the one that runs.

    <store>/<name>                                      link to one of the folders below
    <store>/.versions/<name>/<version>-<8 of sha256>/   a whole, verified version

A folder enters `.versions` and leaves it by one rename, so it is never there in part.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fer_agent.errors import ConfigError, ModelContractError, ModelError
from fer_agent.models.manifest import DetectorManifest, Manifest, by_number, read_any_manifest
from fer_agent.models.store import shipped_folder, verify_folder
from fer_agent.system import durable
from fer_agent.updates.activation.journal import ModelVersion

logger = logging.getLogger(__name__)

VERSIONS_FOLDER: Final = ".versions"
STAGING_FOLDER: Final = ".staging"

_KEY = re.compile(r"(\d+)\.(\d+)\.(\d+)-[0-9a-f]{8}")
_TRASH: Final = "trash-"


@dataclass(frozen=True, slots=True)
class Keep:
    """The number of old versions that stay; the running and the previous one always do.

    Attributes:
        versions: versions of one model, the running one included.
        bytes: their size together.
    """

    versions: int = 3
    bytes: int = 200_000_000


class Versions:
    """All versions of one model name.

    Args:
        store: the model store's folder.
        name: the model's name.
    """

    def __init__(self, store: Path, name: str) -> None:
        self.name = name
        self._store = store
        self._link = store / name
        self._folder = store / VERSIONS_FOLDER / name

    def folder(self, key: str) -> Path:
        """Return the folder of one version, whether or not it is there."""
        return self._folder / key

    def installed(self) -> list[str]:
        """Return the keys of the versions in the store, the newest version first."""
        try:
            found = [path.name for path in self._folder.iterdir() if _KEY.fullmatch(path.name)]
        except OSError:
            return []
        return sorted(found, key=by_number, reverse=True)

    def linked(self) -> str | None:
        """Return the key that the link names; None without a link, or with one from elsewhere."""
        try:
            target = self._link.readlink()
        except OSError:
            return None
        known = target.parent == Path(VERSIONS_FOLDER) / self.name and _KEY.fullmatch(target.name)
        return target.name if known else None

    def current(self) -> ModelVersion | None:
        """Return the linked version; None without one, or when its manifest cannot be read."""
        key = self.linked()
        return None if key is None else version_of(self.folder(key))

    def point(self, key: str | None) -> None:
        """Switch to a version; None is the one shipped with the agent.

        Raises:
            OSError: the link cannot be made.
            ConfigError: a folder made by hand is in the link's place.
        """
        self.refuse_folder_by_hand()
        durable.point(self._link, None if key is None else f"{VERSIONS_FOLDER}/{self.name}/{key}")

    def refuse_folder_by_hand(self) -> None:
        """Refuse to replace a folder that a person put in the link's place.

        Raises:
            ConfigError: there is something else than a link.
        """
        if self._link.exists() and not self._link.is_symlink():
            raise ConfigError(
                f"{self._link} was made by hand, and updates would replace it",
                remedy="move it away to let updates in, or give your model a name of its own",
            )

    def adopt(self, staged: Path, version: ModelVersion) -> Path:
        """Move a staged, verified folder in, unless that version is here already and whole.

        Raises:
            OSError: the disk is full, or the store cannot be written.
        """
        folder = self.folder(version.key)
        if folder.exists():
            with contextlib.suppress(ModelError):
                if verify(folder, self.name) == version:
                    return folder
            logger.warning("%s is damaged; it is replaced", folder)
            self.discard(version.key)
        self._folder.mkdir(parents=True, exist_ok=True)
        durable.sync_tree(staged)
        staged.rename(folder)
        durable.sync_folder(self._folder)
        # The folders above may be new as well.
        durable.sync_folder(self._folder.parent)
        durable.sync_folder(self._store)
        return folder

    def discard(self, key: str) -> None:
        """Remove a version: rename it away, then delete it.

        Raises:
            OSError: the store cannot be written.
        """
        staging = self._store / STAGING_FOLDER
        staging.mkdir(parents=True, exist_ok=True)
        trash = Path(tempfile.mkdtemp(prefix=_TRASH, dir=staging))
        self.folder(key).rename(trash / key)
        durable.sync_folder(self._folder)
        shutil.rmtree(trash, ignore_errors=True)

    def prune(self, keep: Keep, needed: Collection[str]) -> list[str]:
        """Remove old versions beyond `keep`; return their keys.

        Args:
            keep: the limits.
            needed: keys that stay in any case.

        Raises:
            OSError: the store cannot be written.
        """
        for trash in (self._store / STAGING_FOLDER).glob(f"{_TRASH}*"):
            shutil.rmtree(trash, ignore_errors=True)
        keys = self.installed()
        stay = [key for key in keys if key in needed]
        room_bytes = keep.bytes - sum(_size_bytes(self.folder(key)) for key in stay)
        gone = []
        for key in keys:
            if key in stay:
                continue
            size_bytes = _size_bytes(self.folder(key))
            if len(stay) < keep.versions and size_bytes <= room_bytes:
                stay.append(key)
                room_bytes -= size_bytes
            else:
                self.discard(key)
                gone.append(key)
        return gone


def verify(folder: Path, name: str) -> ModelVersion:
    """Check a version's manifest, and size and hash of every file that it names.

    Args:
        folder: its place.
        name: the name that its manifest must give.

    Raises:
        ModelFileError: a file is missing, truncated or altered, or the manifest is no JSON.
        ModelContractError: the manifest is not one this agent understands, or another model's.
    """
    manifest = read_any_manifest(folder / "manifest.json")
    if manifest.name != name:
        raise ModelContractError(
            f"{folder} holds the model {manifest.name}, not {name}",
            remedy="publish it under its own name",
        )
    verify_folder(folder, manifest)
    return _version(folder, manifest)


def version_of(folder: Path) -> ModelVersion | None:
    """Return the version in a folder by its manifest alone; None when that cannot be read."""
    try:
        return _version(folder, read_any_manifest(folder / "manifest.json"))
    except (OSError, ModelError):
        return None


def in_use(store: Path, name: str) -> ModelVersion | None:
    """Return the version in use under a name, the shipped one included; None without any."""
    return version_of(store / name) or version_of(shipped_folder() / name)


def _version(folder: Path, manifest: Manifest | DetectorManifest) -> ModelVersion:
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    return ModelVersion(version=manifest.version, manifest_sha256=digest)


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
