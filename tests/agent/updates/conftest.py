"""A device that syncs from a simulated repository over a real web server.

`sys.path`: importlib mode leaves it alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from simulated_repository import SimulatedRepository
from syncing_device import SyncingDevice, make_files
from web_server import WebServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def owner(server: WebServer) -> SimulatedRepository:
    """Whoever publishes: one version is there already."""
    owner = SimulatedRepository()
    owner.add(make_files("1.0.0"))
    owner.publish()
    server.site = owner.site
    return owner


@pytest.fixture
def device(tmp_path: Path, server: WebServer, owner: SimulatedRepository) -> SyncingDevice:
    root_file = tmp_path / "root.json"
    root_file.write_bytes(owner.trust_anchor())
    return SyncingDevice(tmp_path / "store", server.url, root_file)
