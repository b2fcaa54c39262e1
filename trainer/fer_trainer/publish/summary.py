"""Descriptions of changes and repositories for people, made from the metadata alone."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fer_trainer.publish.changes import online_roles, versions_of
from fer_trainer.publish.keys import label_of
from fer_trainer.publish.repository import expiry_of
from fer_trainer.publish.roles import OFFLINE, PURPOSE, ROLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from tuf.api.metadata import Root, Targets

    from fer_trainer.publish.changes import MetadataChange
    from fer_trainer.publish.repository import PublishedRepository
    from fer_trainer.publish.roles import RoleName
    from fer_trainer.publish.signing import SigningPlan

_SOON_DAYS = 30


def describe(
    change: MetadataChange,
    before: PublishedRepository | None,
    chosen: Mapping[RoleName, SigningPlan],
    now: datetime,
) -> Iterator[str]:
    """Yield the lines that say what a change signs, and with which keys.

    Args:
        change: the change.
        before: what is published now; None where it is not here, or there is nothing yet: then
            everything is listed instead of the differences.
        chosen: who signs each part.
        now: the time.
    """
    for role, metadata in change.parts:
        signed = metadata.signed
        until = f"{signed.expires:%F %H:%M} UTC"
        yield f"{role} {signed.version} ({PURPOSE[role]}), valid until {until}"
        yield from _signatures(chosen.get(role))
        if role == "root" and change.root is not None:
            old = before.root.signed if before is not None else None
            yield from _root_lines(change.root.signed, old)
        if role == "targets" and change.targets is not None:
            old_list = before.targets.signed if before is not None else None
            yield from _targets_lines(change.targets.signed, old_list)
    starts = change.root is not None and change.root.signed.version == 1
    root = change.root.signed if change.root is not None else before and before.root.signed
    if root and (before is not None or starts):  # else what is published now is not known here
        for role in online_roles(before, change, root, now):
            version = before.versions[role] + 1 if before is not None else 1
            names = ", ".join(label_of(root.keys[keyid]) for keyid in root.roles[role].keyids)
            yield f"{role} {version} ({PURPOSE[role]}), signatures by {names}"


def faults(repository: PublishedRepository, now: datetime) -> list[str]:
    """Return why devices refuse a repository or parts of it; empty where they do not."""
    expired = [
        f"{role} has expired on {signed.expires:%F}: {_renewal(role)}"
        for role, signed in repository.signed.items()
        if signed.is_expired(now)
    ]
    broken = [f"{path} is missing or broken" for path in repository.broken_contents()]
    return expired + broken


def reminders(repository: PublishedRepository, now: datetime) -> list[str]:
    """Return reminders of offline keys' signatures that expire soon."""
    return [
        f"{role} expires in {(signed.expires - now).days} days: {_renewal(role)}"
        for role, signed in repository.signed.items()
        if role in OFFLINE
        and not signed.is_expired(now)
        and signed.expires - now < timedelta(days=_SOON_DAYS)
    ]


def status(repository: PublishedRepository, now: datetime) -> dict[str, Any]:
    """Return the content of a repository, as JSON."""
    root = repository.root.signed
    models: dict[str, dict[str, Any]] = {}
    for target in repository.targets.signed.targets.values():
        name, version, file = target.path.split("/", 2)
        entry = models.setdefault(
            f"{name} {version}", {"name": name, "version": version, "bytes": 0, "files": {}}
        )
        entry["bytes"] += target.length
        entry["files"][file] = target.hashes["sha256"]
        custom = target.custom if isinstance(target.custom, dict) else {}
        entry["kind"] = custom.get("kind")
        entry["minimum_agent_version"] = custom.get("minimum_agent_version")
    return {
        "roles": {
            role: {
                "version": repository.versions[role],
                "expires": repository.signed[role].expires.isoformat(),
                "days": repository.expiry.days(role),
                "threshold": root.roles[role].threshold,
                "keys": [label_of(root.keys[keyid]) for keyid in root.roles[role].keyids],
            }
            for role in ROLES
        },
        "models": [models[one] for one in sorted(models)],
        "faults": faults(repository, now),
        "reminders": reminders(repository, now),
    }


def describe_status(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a status."""
    for role, one in tree["roles"].items():
        yield (
            f"{role:9} {one['version']:>4}  until {one['expires'][:16].replace('T', ' ')} UTC, "
            f"{one['threshold']} of {len(one['keys'])} must sign: {', '.join(one['keys'])}"
        )
    for model in tree["models"]:
        yield (
            f"{model['name']} {model['version']}: {model['kind']}, {len(model['files'])} files, "
            f"{model['bytes']:,} bytes, for fer-agent {model['minimum_agent_version']} or later"
        )
    if not tree["models"]:
        yield "no models"
    for line in (*tree["faults"], *tree["reminders"]):
        yield f"note: {line}"


def _renewal(role: RoleName) -> str:
    if role in OFFLINE:
        return f"`fer-train publish refresh --also {role}`, with its offline keys"
    return "`fer-train publish refresh`, with the online keys"


def _signatures(plan: SigningPlan | None) -> Iterator[str]:
    if plan is None:
        return
    if plan.signers:
        yield f"  signatures by {', '.join(label_of(key) for key in plan.signers)}"
    for need, lacking in plan.missing:
        absent = [label_of(key) for key in need.keys.values() if key not in plan.signers]
        yield f"  lacks {lacking} of {need.threshold} signatures by {need.by}: {', '.join(absent)}"


def _root_lines(root: Root, old: Root | None) -> Iterator[str]:
    for role in ROLES:
        keyids, threshold = root.roles[role].keyids, root.roles[role].threshold
        before = old.roles[role].keyids if old is not None else []
        names = [
            label_of(root.keys[keyid]) + (" NEW" if old is not None and keyid not in before else "")
            for keyid in keyids
        ]
        gone = [
            label_of(old.keys[keyid]) for keyid in before if old is not None and keyid not in keyids
        ]
        line = f"  {role}: {threshold} of {len(keyids)} must sign: {', '.join(names)}"
        if old is not None and old.roles[role].threshold != threshold:
            line += f"; {old.roles[role].threshold} so far"
        yield line + (f"; no longer {', '.join(gone)}" if gone else "")
    days = expiry_of(root).as_json()
    yield "  valid for " + ", ".join(f"{role} {count} days" for role, count in days.items())


def _targets_lines(targets: Targets, old: Targets | None) -> Iterator[str]:
    now, before = versions_of(targets), versions_of(old) if old is not None else []
    files: dict[str, list[str]] = defaultdict(list)
    for target in targets.targets.values():
        name, version, file = target.path.split("/", 2)
        files[f"{name} {version}"].append(
            f"{file} {target.length:,} bytes, sha256 {target.hashes['sha256']}"
        )
    if old is None:
        yield f"  {len(now)} versions of models"
    for gone in before:
        if gone not in now:
            yield f"  - {gone}"
    for version in now:
        if version not in before:
            yield f"  + {version}"
            yield from (f"      {line}" for line in files[version])
    kept = [version for version in now if version in before]
    if kept:
        yield f"  unchanged: {', '.join(kept)}"
