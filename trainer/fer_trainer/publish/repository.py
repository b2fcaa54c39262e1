"""Reading of a repository's folder, verified as a device verifies it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tuf.api.exceptions import RepositoryError as TufError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from fer_agent.updates.catalog import METADATA_FOLDER, TARGETS_FOLDER
from fer_trainer.publish import staging
from fer_trainer.publish.errors import RepositoryError
from fer_trainer.publish.roles import DEFAULT_DAYS, EXPIRY_FIELD, ROLES, Expiry, RoleName

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from tuf.api.metadata import Signed, TargetFile

TIMESTAMP: Final = f"{METADATA_FOLDER}/timestamp.json"

_ROOT_FILE = re.compile(r"(\d+)\.root\.json")
_REMEDY = "publish from a whole copy of the folder; `fer-train publish init` starts a new one"


@dataclass(frozen=True, slots=True)
class PublishedRepository:
    """The content of a repository, verified from the root's keys down to the list of models.

    Attributes:
        folder: what a web server serves; `metadata/` and `targets/` are in it.
        root: the newest root, signed by the one before it.
        targets: the list of models that `snapshot` names.
        snapshot: the one that `timestamp` names.
        timestamp: the newest one.
    """

    folder: Path
    root: Metadata[Root]
    targets: Metadata[Targets]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]

    @property
    def signed(self) -> Mapping[RoleName, Signed]:
        """The signed part of each role's metadata."""
        return {
            "root": self.root.signed,
            "targets": self.targets.signed,
            "snapshot": self.snapshot.signed,
            "timestamp": self.timestamp.signed,
        }

    @property
    def versions(self) -> dict[str, int]:
        """The version of each role's metadata."""
        return {role: signed.version for role, signed in self.signed.items()}

    @property
    def expiry(self) -> Expiry:
        """The number of days that each role's signatures are valid."""
        return expiry_of(self.root.signed)

    def require_valid_root(self, now: datetime) -> None:
        """Refuse to build on a root that devices refuse.

        Raises:
            RepositoryError: it has expired.
        """
        if self.root.signed.is_expired(now):
            raise RepositoryError(
                f"root {self.root.signed.version} has expired on {self.root.signed.expires:%F}",
                remedy="sign a new one first: `fer-train publish refresh --also root`",
            )

    def broken_contents(self) -> list[str]:
        """Return the files of models that are not there, or are not what is signed of them."""
        return [
            path
            for target in self.targets.signed.targets.values()
            for path in (content_path(target),)
            if not _is_whole(self.folder / path, target)
        ]


def metadata_path(role: RoleName, version: int) -> str:
    """Return the path of metadata, relative to the repository's folder (consistent snapshots)."""
    return TIMESTAMP if role == "timestamp" else f"{METADATA_FOLDER}/{version}.{role}.json"


def content_path(target: TargetFile) -> str:
    """Return the path of a target's content, relative to the repository's folder."""
    return f"{TARGETS_FOLDER}/{target.get_prefixed_paths()[0]}"


def expiry_of(root: Root) -> Expiry:
    """Return the expiry settings that a root carries; the defaults where it has none."""
    field = root.unrecognized_fields.get(EXPIRY_FIELD)
    settings = field if isinstance(field, dict) else {}
    return Expiry(**{role: int(settings.get(role, DEFAULT_DAYS[role])) for role in ROLES})


def exists(folder: Path) -> bool:
    """Return whether a folder holds a repository, whole or not."""
    return any((folder / METADATA_FOLDER).glob("*.json")) or staging.is_unfinished(folder)


def read(folder: Path) -> PublishedRepository:
    """Read what a folder publishes and verify every signature, version, length and hash.

    Expiry is not checked: an expired repository can be renewed.

    Raises:
        RepositoryError: it is no repository, or something in it does not verify.
    """
    if staging.is_unfinished(folder):
        raise RepositoryError(
            f"a publication into {folder} was cut short",
            remedy="finish it: `fer-train publish refresh` does, with the online keys",
        )
    root = _read_roots(folder)
    timestamp: Metadata[Timestamp] = _parse(folder, TIMESTAMP)
    _verify(root.signed, timestamp, folder)
    snapshot_meta = timestamp.signed.snapshot_meta
    snapshot_path = metadata_path("snapshot", snapshot_meta.version)
    snapshot: Metadata[Snapshot] = _parse(folder, snapshot_path)
    _verify(root.signed, snapshot, folder)
    targets_meta = snapshot.signed.meta["targets.json"]
    targets_path = metadata_path("targets", targets_meta.version)
    targets: Metadata[Targets] = _parse(folder, targets_path)
    _verify(root.signed, targets, folder)
    try:
        snapshot_meta.verify_length_and_hashes((folder / snapshot_path).read_bytes())
        targets_meta.verify_length_and_hashes((folder / targets_path).read_bytes())
    except TufError as error:
        raise RepositoryError(f"{folder} does not verify: {error}", remedy=_REMEDY) from error
    for role, named, found in (
        ("snapshot", snapshot_meta.version, snapshot.signed.version),
        ("targets", targets_meta.version, targets.signed.version),
    ):
        if named != found:
            raise RepositoryError(
                f"{folder}: {named}.{role}.json holds version {found}", remedy=_REMEDY
            )
    return PublishedRepository(folder, root, targets, snapshot, timestamp)


def parse_metadata(path: Path) -> Metadata[Root] | Metadata[Targets]:
    """Read a metadata file on its own; no signature is verified.

    Raises:
        RepositoryError: it cannot be read or is no metadata.
    """
    return _parse(path.parent, path.name)


def _read_roots(folder: Path) -> Metadata[Root]:
    """Verify each root by the one before it, and return the newest."""
    versions = sorted(
        int(match[1])
        for path in (folder / METADATA_FOLDER).glob("*.root.json")
        if (match := _ROOT_FILE.fullmatch(path.name))
    )
    if not versions:
        raise RepositoryError(
            f"{folder} is no repository: it has no {METADATA_FOLDER}/1.root.json",
            remedy="name the right folder, or start one with `fer-train publish init`",
        )
    previous: Metadata[Root] | None = None
    for version in versions:
        root: Metadata[Root] = _parse(folder, metadata_path("root", version))
        if root.signed.version != version or versions[0] != 1:
            raise RepositoryError(f"{folder} has a gap in its roots", remedy=_REMEDY)
        try:
            result = root.signed.get_root_verification_result(
                previous.signed if previous else None, root.signed_bytes, root.signatures
            )
        except ValueError as error:
            raise RepositoryError(f"{folder}: {error}", remedy=_REMEDY) from error
        if not result:
            raise RepositoryError(
                f"{folder}: {version}.root.json is not signed by enough keys", remedy=_REMEDY
            )
        previous = root
    assert previous is not None  # noqa: S101  there is a version, so there is a root
    return previous


def _parse(folder: Path, path: str) -> Metadata:  # type: ignore[type-arg]  # the caller knows which
    try:
        return Metadata.from_bytes((folder / path).read_bytes())
    except OSError as error:
        raise RepositoryError(
            f"cannot read {folder / path}: {error.strerror}", remedy=_REMEDY
        ) from error
    except DeserializationError as error:
        raise RepositoryError(f"{folder / path} is no metadata", remedy=_REMEDY) from error


def _verify(root: Root, metadata: Metadata, folder: Path) -> None:  # type: ignore[type-arg]
    role = metadata.signed.type
    try:
        root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (TufError, ValueError) as error:
        raise RepositoryError(f"{folder} does not verify: {error}", remedy=_REMEDY) from error


def _is_whole(path: Path, target: TargetFile) -> bool:
    try:
        with path.open("rb") as file:
            target.verify_length_and_hashes(file)
    except (OSError, TufError):
        return False
    return True
