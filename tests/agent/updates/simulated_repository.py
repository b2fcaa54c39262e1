"""A signed repository in memory, for owners who publish and for attackers who have some keys.

On python-tuf's metadata API, as its own tests do it; every change has to be published, and what was
published before stays at hand, as it would for a mirror that turns against its owner.
"""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fer_agent.models.manifest import parse_manifest
from fer_agent.updates.catalog import MANIFEST_FILE, customs_of

START = datetime(2027, 3, 1, tzinfo=timezone.utc)
DAYS = {"root": 365, "targets": 180, "snapshot": 30, "timestamp": 7}


class SimulatedRepository:
    """Its `site` is what a web server would serve, by path."""

    def __init__(self, now: datetime = START, *, targets_threshold: int = 1) -> None:
        self.now = now
        self.site: dict[str, bytes] = {}
        self.keys: dict[str, list[CryptoSigner]] = {
            role: [CryptoSigner.generate_ed25519()] for role in DAYS
        }
        while len(self.keys["targets"]) < targets_threshold:
            self.keys["targets"].append(CryptoSigner.generate_ed25519())
        self.root = Metadata(Root(expires=self._expiry("root"), consistent_snapshot=True))
        for role, signers in self.keys.items():
            for signer in signers:
                self.root.signed.add_key(signer.public_key, role)
            self.root.signed.roles[role].threshold = len(signers)
        self.targets = Metadata(Targets(expires=self._expiry("targets")))
        self.snapshot = Metadata(Snapshot(expires=self._expiry("snapshot")))
        self.timestamp = Metadata(Timestamp(expires=self._expiry("timestamp")))
        self.publish_root(bump=False)
        self.publish(bump=False)

    def trust_anchor(self) -> bytes:
        """The first root: what a device is set up with."""
        return self.site["metadata/1.root.json"]

    def add(self, files: dict[str, bytes], minimum_agent_version: str = "0.1.0") -> None:
        """Add a version: its files by name, the manifest among them."""
        content = json.loads(files[MANIFEST_FILE])
        customs = customs_of(
            parse_manifest(content, where="test"),
            content,
            minimum_agent_version=minimum_agent_version,
        )
        for file, custom in customs.items():
            self.add_target(custom.target_path, files[file], custom.as_json())

    def add_target(self, path: str, content: bytes, custom: dict[str, Any] | None) -> None:
        target = TargetFile.from_data(path, content, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = custom
        self.targets.signed.targets[path] = target
        self.site[self.place(path, content)] = content

    def remove(self, name: str, version: str) -> None:
        listed = self.targets.signed.targets
        for path in [path for path in listed if path.startswith(f"{name}/{version}/")]:
            del listed[path]

    @staticmethod
    def place(path: str, content: bytes) -> str:
        """Where a target's content lies on the server."""
        folder, _, file = path.rpartition("/")
        return f"targets/{folder}/{hashlib.sha256(content).hexdigest()}.{file}"

    def rotate(self, role: str) -> list[CryptoSigner]:
        """Replace a role's keys; returns the old ones."""
        old = self.keys[role]
        for signer in old:
            self.root.signed.revoke_key(signer.public_key.keyid, role)
        self.keys[role] = [CryptoSigner.generate_ed25519() for _ in old]
        for signer in self.keys[role]:
            self.root.signed.add_key(signer.public_key, role)
        self.publish_root(also=old if role == "root" else [])
        return old

    def publish_root(self, *, bump: bool = True, also: list[CryptoSigner] | None = None) -> None:
        if bump:
            self.root.signed.version += 1
            self.root.signed.expires = self._expiry("root")
        self._sign(self.root, [*self.keys["root"], *(also or [])])
        self.site[f"metadata/{self.root.signed.version}.root.json"] = self.root.to_bytes()

    def publish(self, *, bump: bool = True) -> None:
        """Sign the lists anew and lay them down: targets, snapshot, then timestamp."""
        if bump:
            self.targets.signed.version += 1
        self.targets.signed.expires = self._expiry("targets")
        self._sign(self.targets, self.keys["targets"])
        self.lay_down("targets", self.targets)
        self.refresh(bump=bump)

    def refresh(self, *, bump: bool = True) -> None:
        """Sign snapshot and timestamp anew, with the online keys alone."""
        if bump:
            self.snapshot.signed.version += 1
            self.timestamp.signed.version += 1
        self.snapshot.signed.expires = self._expiry("snapshot")
        self.snapshot.signed.meta["targets.json"] = MetaFile(self.targets.signed.version)
        self._sign(self.snapshot, self.keys["snapshot"])
        self.lay_down("snapshot", self.snapshot)
        self.timestamp.signed.expires = self._expiry("timestamp")
        self.timestamp.signed.snapshot_meta = MetaFile(self.snapshot.signed.version)
        self._sign(self.timestamp, self.keys["timestamp"])
        self.site["metadata/timestamp.json"] = self.timestamp.to_bytes()

    def lay_down(self, role: str, metadata: Metadata[Any]) -> None:
        path = f"metadata/{metadata.signed.version}.{role}.json"
        self.site[path] = metadata.to_bytes()

    def twin(self) -> SimulatedRepository:
        """A copy that goes its own way, with the same keys."""
        other = SimulatedRepository.__new__(SimulatedRepository)
        other.now = self.now
        other.site = dict(self.site)
        other.keys = {role: list(signers) for role, signers in self.keys.items()}
        for name in ("root", "targets", "snapshot", "timestamp"):
            setattr(other, name, deepcopy(getattr(self, name)))
        return other

    def _expiry(self, role: str) -> datetime:
        return self.now + timedelta(days=DAYS[role])

    @staticmethod
    def _sign(metadata: Metadata[Any], signers: list[CryptoSigner]) -> None:
        metadata.signatures.clear()
        for signer in signers:
            metadata.sign(signer, append=True)
