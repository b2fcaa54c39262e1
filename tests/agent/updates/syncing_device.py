"""A board with a store that syncs from a repository."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from manifests import manifest
from simulated_repository import START
from untried import Untried

from fer_agent.updates.activation.change import ModelChange
from fer_agent.updates.activation.versions import Keep, Versions
from fer_agent.updates.client import Repository
from fer_agent.updates.connection import MinRate, ProxyAndTls
from fer_agent.updates.fetch import Fetcher, RetryPolicy
from fer_agent.updates.switch import Switch
from fer_agent.updates.sync import ModelSync, SyncRequest
from fer_agent.updates.trusted_time import TrustedTime

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from fer_agent.updates.report import SyncReport

NAME = "tiny"

IMPATIENT = RetryPolicy(attempts=3, first_wait_s=0.01)

SHORT_WINDOW = MinRate(stall_s=1.0, window_s=1.0, window_bytes=2_000)
"""Far below what loopback gives on the busiest machine, and far above a dribble."""


def make_files(
    version: str, network: bytes | None = None, name: str = NAME, **changes: Any
) -> dict[str, bytes]:
    """Make a whole version; its network is no ONNX, so it can be installed but not run."""
    content = network if network is not None else f"network of {version} ".encode() * 500
    told = manifest(content, name=name, version=version, **changes)
    return {"manifest.json": json.dumps(told).encode(), "model.onnx": content}


@dataclass
class Clock:
    """A board's clock: what it shows, and whether something keeps it right."""

    shows: datetime = START
    synced: bool | None = True

    def now(self) -> datetime:
        return self.shows

    def pass_days(self, days: float) -> None:
        self.shows += timedelta(days=days)


@dataclass
class SyncingDevice:
    """A store with what syncs it; it installs without switching unless told otherwise."""

    store: Path
    url: str
    root_file: Path
    clock: Clock = field(default_factory=Clock)
    agent_version: str = "0.1.0"
    min_rate: MinRate = SHORT_WINDOW
    keep: Keep = field(default_factory=Keep)

    @property
    def work(self) -> ModelSync:
        fetcher = Fetcher(ProxyAndTls(), self.min_rate, IMPATIENT)
        trusted = self.store / ".state" / "trusted-time.json"
        return ModelSync(
            store=self.store,
            repository=Repository(self.url, self.root_file, self.store / ".tuf", fetcher),
            switch=Switch(self.store, ModelChange(self.store, Untried(), self.keep)),
            clock=TrustedTime(trusted, self.clock.now, lambda: self.clock.synced),
            limit_bytes=10_000_000,
            agent_version=self.agent_version,
        )

    def sync(self, *names: str, **wishes: Any) -> SyncReport:
        return self.work.run(SyncRequest(**{"names": names or (NAME,), "activate": False} | wishes))

    def linked(self, name: str = NAME) -> str | None:
        """The version that would run."""
        key = Versions(self.store, name).linked()
        return None if key is None else key.partition("-")[0]

    def versions(self, name: str = NAME) -> list[str]:
        """Versions in the store, the newest first."""
        return [key.partition("-")[0] for key in Versions(self.store, name).installed()]
