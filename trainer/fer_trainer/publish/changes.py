"""Changes of a repository, new unsigned metadata made from the old without input or output.

Only root and targets are changed by people; snapshot and timestamp follow from them
(`online`). A version number is always one more than the last.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from fer_agent.errors import UsageError
from fer_trainer.publish.errors import PublishedError
from fer_trainer.publish.keys import LABEL_FIELD, label_of
from fer_trainer.publish.repository import expiry_of
from fer_trainer.publish.roles import EXPIRY_FIELD, ROLES, Expiry, RoleName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from securesystemslib.signer import Key

    from fer_trainer.publish.releases import CheckedRelease, Content
    from fer_trainer.publish.repository import PublishedRepository

_Offline = TypeVar("_Offline", Root, Targets)


@dataclass(frozen=True, slots=True)
class MetadataChange:
    """New metadata of the offline roles, and the files that it names for the first time.

    Attributes:
        title: what it does, for people.
        root: the next root; None leaves it as it is.
        targets: the next list of models; None leaves it as it is.
        contents: files of models that are not published yet.
    """

    title: str
    root: Metadata[Root] | None = None
    targets: Metadata[Targets] | None = None
    contents: tuple[Content, ...] = ()

    @property
    def parts(self) -> tuple[tuple[RoleName, Metadata[Root] | Metadata[Targets]], ...]:
        """The metadata that people sign, by role."""
        both: tuple[tuple[RoleName, Metadata[Root] | Metadata[Targets] | None], ...] = (
            ("root", self.root),
            ("targets", self.targets),
        )
        return tuple((role, metadata) for role, metadata in both if metadata is not None)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The keys that a role gets and loses.

    Attributes:
        role: whose keys.
        add: public keys that sign from now on.
        remove: ids of keys that no longer do.
        threshold: how many must sign; None leaves it.
    """

    role: RoleName
    add: tuple[Key, ...] = ()
    remove: tuple[str, ...] = ()
    threshold: int | None = None


def begin(
    keys: Mapping[RoleName, Sequence[Key]],
    thresholds: Mapping[RoleName, int],
    expiry: Expiry,
    now: datetime,
) -> MetadataChange:
    """Start a repository: the first root and an empty list of models.

    Raises:
        UsageError: a role has fewer keys than must sign, or two roles share a key that may not.
    """
    root = Root(
        expires=expiry.after("root", now), unrecognized_fields={EXPIRY_FIELD: expiry.as_json()}
    )
    for role in ROLES:
        for key in keys[role]:
            root.add_key(key, role)
        root.roles[role].threshold = thresholds[role]
        _check_role(root, role)
    targets = Targets(expires=expiry.after("targets", now))
    return MetadataChange("start a repository", Metadata(root), Metadata(targets))


def add(
    repository: PublishedRepository, releases: Sequence[CheckedRelease], now: datetime
) -> MetadataChange | None:
    """Add versions of models; None when all of them are published already, just so.

    Raises:
        PublishedError: a version is, or was, published with other content.
    """
    targets = _next(repository.targets.signed, "targets", repository, now)
    fresh = []
    for release in releases:
        if _is_published(repository, release):
            continue
        fresh.append(release)
        for content in release.contents:
            targets.targets[content.target.path] = content.target
    if not fresh:
        return None
    names = ", ".join(f"{release.name} {release.version}" for release in fresh)
    contents = tuple(content for release in fresh for content in release.contents)
    return MetadataChange(f"add {names}", targets=Metadata(targets), contents=contents)


def retire(
    repository: PublishedRepository, name: str, version: str, now: datetime
) -> MetadataChange:
    """Take a version of a model off the list.

    Raises:
        UsageError: it is not on it.
    """
    targets = _next(repository.targets.signed, "targets", repository, now)
    gone = [path for path in targets.targets if path.startswith(f"{name}/{version}/")]
    if not gone:
        have = ", ".join(versions_of(repository.targets.signed)) or "nothing"
        raise UsageError(f"{name} {version} is not published", remedy=f"name one that is: {have}")
    for path in gone:
        del targets.targets[path]
    return MetadataChange(f"retire {name} {version}", targets=Metadata(targets))


def rotate(
    repository: PublishedRepository, rotation: Rotation, now: datetime, expiry: Expiry | None = None
) -> MetadataChange:
    """Change which keys a role has, and how many must sign; optionally how long signatures last.

    The list of models is signed again whenever its keys change, for devices refuse it otherwise.

    Raises:
        UsageError: a key to remove is not the role's, or too few keys would be left.
    """
    settings = expiry or repository.expiry
    root = _next(repository.root.signed, "root", repository, now)
    root.unrecognized_fields[EXPIRY_FIELD] = settings.as_json()
    root.expires = settings.after("root", now)
    role = root.roles[rotation.role]
    for keyid in rotation.remove:
        if keyid not in role.keyids:
            raise UsageError(
                f"{keyid[:8]} is no key of {rotation.role}",
                remedy="`fer-train publish status` lists them",
            )
        root.revoke_key(keyid, rotation.role)
    for key in rotation.add:
        root.add_key(key, rotation.role)
    role.threshold = rotation.threshold or role.threshold
    _check_role(root, rotation.role)
    targets = None
    if rotation.role == "targets":
        targets = Metadata(_next(repository.targets.signed, "targets", repository, now))
        targets.signed.expires = settings.after("targets", now)
    return MetadataChange(f"change the keys of {rotation.role}", Metadata(root), targets)


def renew(
    repository: PublishedRepository, roles: Sequence[RoleName], now: datetime
) -> MetadataChange:
    """Sign root or targets again as they are, to be valid for longer."""
    root = targets = None
    if "root" in roles:
        root = Metadata(_next(repository.root.signed, "root", repository, now))
    if "targets" in roles:
        targets = Metadata(_next(repository.targets.signed, "targets", repository, now))
    return MetadataChange(f"renew {', '.join(roles) or 'timestamp'}", root, targets)


def online(
    repository: PublishedRepository | None, change: MetadataChange, root: Root, now: datetime
) -> tuple[Metadata[Snapshot] | None, Metadata[Timestamp]]:
    """Make the timestamp, and where it is needed the snapshot, that follow from a change.

    Args:
        repository: what is published; None for a new repository.
        change: its parts are signed already: their bytes are hashed here.
        root: the root that holds after the change.
        now: the time.

    Returns:
        The snapshot, or None where the published one stays; and the timestamp; both unsigned.
    """
    expiry = expiry_of(root)
    if repository is None:
        snapshot, timestamp = Snapshot(), Timestamp()
    else:
        snapshot = copy.deepcopy(repository.snapshot.signed)
        timestamp = copy.deepcopy(repository.timestamp.signed)
        timestamp.version += 1
    timestamp.expires = expiry.after("timestamp", now)
    if "snapshot" not in online_roles(repository, change, root, now):
        return None, Metadata(timestamp)
    if repository is not None:
        snapshot.version += 1
    snapshot.expires = expiry.after("snapshot", now)
    if change.targets is not None:
        snapshot.meta["targets.json"] = _meta(change.targets)
    return Metadata(snapshot), Metadata(timestamp)


def online_roles(
    repository: PublishedRepository | None, change: MetadataChange, root: Root, now: datetime
) -> tuple[RoleName, ...]:
    """Return the online roles that sign when a change is published."""
    if repository is None or _needs_snapshot(repository, change, root, now):
        return ("snapshot", "timestamp")
    return ("timestamp",)


def with_snapshot(timestamp: Metadata[Timestamp], snapshot: Metadata[Snapshot]) -> None:
    """Set the snapshot, signed already, that a timestamp names."""
    timestamp.signed.snapshot_meta = _meta(snapshot)


def versions_of(targets: Targets) -> list[str]:
    """Return the versions on the list, as `name x.y.z`, sorted."""
    return sorted({" ".join(path.split("/")[:2]) for path in targets.targets})


def key_named(root: Root, role: RoleName, text: str) -> str:
    """Find a role's key by its label or the beginning of its id.

    Raises:
        UsageError: none or several fit.
    """
    keys = [root.keys[keyid] for keyid in root.roles[role].keyids]
    fitting = [key for key in keys if key.unrecognized_fields.get(LABEL_FIELD) == text]
    fitting = fitting or [key for key in keys if len(text) >= 4 and key.keyid.startswith(text)]
    if len(fitting) != 1:
        raise UsageError(
            f"{'no key' if not fitting else 'more than one key'} of {role} is called {text!r}",
            remedy="use one of: " + ", ".join(label_of(key) for key in keys),
        )
    return fitting[0].keyid


def _next(
    signed: _Offline, role: RoleName, repository: PublishedRepository, now: datetime
) -> _Offline:
    fresh = copy.deepcopy(signed)
    fresh.version += 1
    fresh.expires = repository.expiry.after(role, now)
    return fresh


def _check_role(root: Root, role: RoleName) -> None:
    keyids, threshold = root.roles[role].keyids, root.roles[role].threshold
    if threshold < 1 or len(keyids) < threshold:
        raise UsageError(
            f"{role} would have {len(keyids)} keys, of which {threshold} must sign",
            remedy="give it more keys, or another --threshold of at least 1",
        )
    for other in ROLES:
        shared = set(keyids) & set(root.roles[other].keyids)
        if shared and {role, other} not in ({"snapshot", "timestamp"}, {role}):
            raise UsageError(
                f"{label_of(root.keys[shared.pop()])} would sign for {role} and {other}",
                remedy="give each its own key: whoever takes one must not get the other",
            )


def _is_published(repository: PublishedRepository, release: CheckedRelease) -> bool:
    """Return whether exactly this is published.

    Raises:
        PublishedError: the version is, or was, published with other content.
    """
    remedy = "devices keep what they have of a version: publish this as a new version"
    where = f"{release.name}/{release.version}/"
    have = {
        path: (target.length, target.hashes)
        for path, target in repository.targets.signed.targets.items()
        if path.startswith(where)
    }
    want = {
        content.target.path: (content.target.length, content.target.hashes)
        for content in release.contents
    }
    if have and have != want:
        raise PublishedError(
            f"{release.name} {release.version} is published with other content", remedy=remedy
        )
    return bool(have)


def _needs_snapshot(
    repository: PublishedRepository, change: MetadataChange, root: Root, now: datetime
) -> bool:
    old = repository.snapshot.signed
    return (
        change.targets is not None
        or set(root.roles["snapshot"].keyids)
        != set(repository.root.signed.roles["snapshot"].keyids)
        or root.roles["snapshot"].threshold != repository.root.signed.roles["snapshot"].threshold
        or expiry_of(root).is_due("snapshot", old.expires, now)
    )


def _meta(metadata: Metadata) -> MetaFile:  # type: ignore[type-arg]
    content = metadata.to_bytes()
    return MetaFile(
        metadata.signed.version, len(content), {"sha256": hashlib.sha256(content).hexdigest()}
    )
