"""Publication of a signed change into the served folder, after all checks."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Final

from fer_agent.errors import ModelFileError
from fer_agent.updates.catalog import TARGETS_FOLDER
from fer_trainer.errors import StorageError
from fer_trainer.publish import changes, last_published, repository, signing
from fer_trainer.publish.errors import PublishedError, RepositoryError, ThresholdError
from fer_trainer.publish.repository import content_path, metadata_path

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Timestamp

    from fer_trainer.publish.changes import MetadataChange
    from fer_trainer.publish.releases import Content
    from fer_trainer.publish.repository import PublishedRepository
    from fer_trainer.publish.roles import RoleName
    from fer_trainer.publish.signing import Keyring, SigningPlan
    from fer_trainer.publish.staging import StagingArea

logger = logging.getLogger(__name__)

TARGETS_LIMIT_BYTES: Final = 5_000_000
"""Devices read no longer list of models: `targets_max_length` of python-tuf's UpdaterConfig."""


def publish(
    area: StagingArea,
    before: PublishedRepository | None,
    change: MetadataChange,
    keyring: Keyring,
    now: datetime,
) -> PublishedRepository:
    """Publish a change that is signed, with snapshot and timestamp signed here.

    Args:
        area: of the repository's folder; its lock is held.
        before: what it publishes now; None for a new repository.
        change: signed by as many keys as must sign.
        keyring: has the online keys.
        now: the time.

    Returns:
        The repository as published afterwards, read back and verified.

    Raises:
        ThresholdError: signatures are missing, on the change or for lack of online keys.
        RepositoryError: the change was made for another state of the repository, or content is
            missing.
        KeyFileError: an online key cannot be read.
        ModelFileError: a file is not what was signed of it.
        StorageError: the disk is full or refuses a file.
    """
    root = _check_change(area.folder, before, change, now)
    snapshot, timestamp = _sign_online(before, change, root, keyring, now)
    for content in change.contents:
        area.copy(
            content_path(content.target),
            content.source,
            sha256=content.target.hashes["sha256"],
            size_bytes=content.target.length,
        )
    for role, metadata in change.parts:
        area.put(metadata_path(role, metadata.signed.version), metadata.to_bytes())
    if snapshot is not None:
        area.put(metadata_path("snapshot", snapshot.signed.version), snapshot.to_bytes())
    area.put(repository.TIMESTAMP, timestamp.to_bytes())
    area.publish()
    after = repository.read(area.folder)
    last_published.remember(after, keyring)
    return after


def require_online_keys(
    before: PublishedRepository | None, change: MetadataChange, keyring: Keyring, now: datetime
) -> None:
    """Refuse early, before a password is asked for, when online keys are not here.

    Raises:
        ThresholdError: they are not.
        RepositoryError: the folder is older than what they have published.
    """
    root = change.root.signed if change.root is not None else _root_of(before)
    last_published.check(before, root, keyring)
    for role in changes.online_roles(before, change, root, now):
        _online_plan(root, role, keyring)


def check_contents(before: PublishedRepository, contents: tuple[Content, ...]) -> None:
    """Refuse files that were published, as something else, in a version since retired.

    Raises:
        PublishedError: there is such a file.
    """
    for content in contents:
        place = before.folder / content_path(content.target)
        name = content.target.path.rpartition("/")[2]
        others = [
            path
            for path in place.parent.glob(f"*.{name}")
            if path.name != place.name and len(path.name) == len(place.name)
        ]
        if others:
            raise PublishedError(
                f"{content.target.path} was published with other content, in {others[0]}",
                remedy="devices keep what they have of a version: publish this as a new version",
            )


def delete_retired(after: PublishedRepository) -> list[str]:
    """Delete files of models that are on the list no more; returns their paths in the folder.

    Raises:
        StorageError: the disk refuses it.
    """
    kept = {after.folder / content_path(one) for one in after.targets.signed.targets.values()}
    top = after.folder / TARGETS_FOLDER
    gone = sorted(path for path in top.rglob("*") if path.is_file() and path not in kept)
    try:
        for path in gone:
            path.unlink()
        for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        raise StorageError(
            f"cannot delete {error.filename}: {error.strerror}",
            remedy="what is published is whole; delete the rest of that model's folder by hand",
        ) from error
    return [str(path.relative_to(after.folder)) for path in gone]


def _check_change(
    folder: Path, before: PublishedRepository | None, change: MetadataChange, now: datetime
) -> Root:
    """Verify a change as devices will; returns the root that holds after it."""
    previous = before.root.signed if before is not None else None
    if before is None and repository.exists(folder):
        raise RepositoryError(
            f"there is a repository in {folder} already",
            remedy="add to it with `fer-train publish add`, or name an empty folder",
        )
    for role, metadata in change.parts:
        current = before.versions[role] if before is not None else 0
        if metadata.signed.version != current + 1:
            raise RepositoryError(
                f"the change is for {role} {metadata.signed.version - 1}, "
                f"{folder} stands at {current}",
                remedy="make the change again from what is published now",
            )
        if metadata.signed.is_expired(now):
            raise RepositoryError(
                f"the new {role} has expired on {metadata.signed.expires:%F}",
                remedy="make the change again",
            )
    for role, plan in signing.plans(change, previous, ()).items():
        plan.require_complete(f"{role} {dict(change.parts)[role].signed.version}")
    root = change.root.signed if change.root is not None else _root_of(before)
    _check_targets(folder, change)
    return root


def _check_targets(folder: Path, change: MetadataChange) -> None:
    """Refuse a list with a file that is neither published already nor part of the change."""
    if change.targets is None:
        return
    size_bytes = len(change.targets.to_bytes())
    if size_bytes > TARGETS_LIMIT_BYTES:
        raise RepositoryError(
            f"the list of models would have {size_bytes:,} bytes, "
            f"devices read up to {TARGETS_LIMIT_BYTES:,}",
            remedy="retire old versions first",
        )
    coming = {content.target.path: content for content in change.contents}
    for path, target in change.targets.signed.targets.items():
        if path in coming:
            _check_content(coming[path], target)
        elif not (folder / content_path(target)).is_file():
            raise RepositoryError(
                f"the list names {path}, and its content is not in {folder}",
                remedy="restore the folder's targets/ from a copy, or retire that version",
            )


def _check_content(content: Content, target: TargetFile) -> None:
    digest = hashlib.sha256()
    try:
        with content.source.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise ModelFileError(
            f"cannot read {content.source}: {error.strerror}", remedy="bring the file back"
        ) from error
    if digest.hexdigest() != target.hashes["sha256"]:
        raise ModelFileError(
            f"{content.source} is not the file that was signed as {target.path}",
            remedy="let nobody change the files while they are published, and try again",
        )


def _sign_online(
    before: PublishedRepository | None,
    change: MetadataChange,
    root: Root,
    keyring: Keyring,
    now: datetime,
) -> tuple[Metadata[Snapshot] | None, Metadata[Timestamp]]:
    """Sign what follows from a change; all keys are opened before anything is signed."""
    last_published.check(before, root, keyring)
    chosen = {
        role: _online_plan(root, role, keyring)
        for role in changes.online_roles(before, change, root, now)
    }
    for plan in chosen.values():
        for key in plan.signers:
            keyring.signer(key.keyid)
    snapshot, timestamp = changes.online(before, change, root, now)
    if snapshot is not None:
        signing.sign_online(snapshot, chosen["snapshot"], keyring)
        changes.with_snapshot(timestamp, snapshot)
    signing.sign_online(timestamp, chosen["timestamp"], keyring)
    return snapshot, timestamp


def _online_plan(root: Root, role: RoleName, keyring: Keyring) -> SigningPlan:
    plan = signing.choose(signing.needs_of(role, root, None), keyring.files)
    try:
        plan.require_complete(role)
    except ThresholdError as error:
        raise ThresholdError(
            str(error),
            remedy="name the folder of the online keys with --keys; or write the change to a "
            "folder with --out and use `fer-train publish apply` where the online keys are",
        ) from error
    return plan


def _root_of(before: PublishedRepository | None) -> Root:
    if before is None:
        raise RepositoryError(
            "there is no repository yet", remedy="start one with `fer-train publish init`"
        )
    return before.root.signed
