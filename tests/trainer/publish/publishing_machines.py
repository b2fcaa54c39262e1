"""A publisher's machine, driven through the real commands, and devices that trust it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import Updater

from fer_agent.updates.catalog import Catalog, ListedTarget
from fer_agent.updates.trusted_time import set_reference_time
from fer_trainer.cli import main

if TYPE_CHECKING:
    import pytest

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Done:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


@dataclass
class Operator:
    """A machine with a repository, its keys and a password."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    password: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.password = self.folder / "password"
        self.password.write_text(PASSWORD + "\n")

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def keys(self) -> Path:
        return self.folder / "keys"

    @property
    def online(self) -> Path:
        return self.keys / "online"

    def call(self, *words: object) -> Done:
        """Run `fer-train publish` with just these words."""
        self.capsys.readouterr()
        self.monkeypatch.setattr(sys, "argv", ["fer-train", "publish", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = self.capsys.readouterr()
        return Done(code, said.out, said.err)

    def run(self, command: str, *words: object, keys: Path | None = None) -> Done:
        """Run a command on this repository, with these keys and the right password."""
        return self.call(
            command, *words, "--repository", self.repository, "--keys", keys or self.keys,
            "--password-file", self.password,
        )  # fmt: skip

    def must(self, command: str, *words: object, keys: Path | None = None) -> Done:
        done = self.run(command, *words, keys=keys)
        assert done.code == 0, done.err
        return done

    def status(self) -> dict[str, Any]:
        done = self.call("status", "--repository", self.repository, "--json")
        tree: dict[str, Any] = json.loads(done.out)
        return tree

    @property
    def versions(self) -> dict[str, int]:
        return {role: one["version"] for role, one in self.status()["roles"].items()}

    @property
    def models(self) -> list[str]:
        return [f"{one['name']} {one['version']}" for one in self.status()["models"]]

    def at(self, when: datetime) -> None:
        """Set the time that publishing sees."""
        for module in ("publish", "publishing"):
            self.monkeypatch.setattr(f"fer_trainer.commands.{module}.utc_now", lambda: when)

    def later(self, **distance: float) -> datetime:
        when = datetime.now(timezone.utc) + timedelta(**distance)
        self.at(when)
        return when

    def files(self) -> dict[str, bytes]:
        """Return the content of all files that are served."""
        return {
            str(path.relative_to(self.repository)): path.read_bytes()
            for path in sorted(self.repository.rglob("*"))
            if path.is_file() and ".publish" not in path.parts
        }


@dataclass
class Device:
    """python-tuf's own client, as a device has it: a pinned root and the metadata seen so far."""

    folder: Path
    address: str
    root: bytes

    def sync(self, at: datetime | None = None) -> list[str]:
        """Fetch and verify all metadata; returns the versions of models on offer."""
        self._updater = self._client(at)
        self._updater.refresh()
        verified = Metadata[Targets].from_file(str(self.folder / "metadata" / "targets.json"))
        listed = (
            ListedTarget(target.path, target.hashes["sha256"], target.length, target.custom)
            for target in verified.signed.targets.values()
        )
        catalog = Catalog(listed)
        for name in catalog.names():
            assert catalog.choose(name, "0.1.0").newest is not None
        return [
            f"{name} {version}" for name in catalog.names() for version in catalog.versions(name)
        ]

    def fetch(self, path: str) -> bytes:
        """Download and verify one file of a model."""
        info = self._updater.get_targetinfo(path)
        assert info is not None
        return Path(self._updater.download_target(info)).read_bytes()

    def _client(self, at: datetime | None) -> Updater:
        places = [self.folder / "metadata", self.folder / "targets"]
        for place in places:
            place.mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(places[0]),
            f"{self.address}/metadata/",
            str(places[1]),
            f"{self.address}/targets/",
            bootstrap=self.root,
        )
        if at is not None:
            set_reference_time(updater, at)
        return updater


def new_device(publisher: Operator, address: str, folder: Path, version: int = 1) -> Device:
    root = (publisher.repository / "metadata" / f"{version}.root.json").read_bytes()
    return Device(folder, address, root)
