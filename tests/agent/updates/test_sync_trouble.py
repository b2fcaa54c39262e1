"""Syncs in trouble: two at once, a disk that is full, what a power cut left behind."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import shutil
import threading
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
import web_server as web
from syncing_device import NAME, make_files

from fer_agent.errors import AgentError, TemporaryError
from fer_agent.updates import inventory, report
from fer_agent.updates.cache import ContentCache, Wanted
from fer_agent.updates.connection import MinRate
from fer_agent.updates.fetch import Fetcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulated_repository import SimulatedRepository
    from syncing_device import SyncingDevice
    from web_server import WebServer

FILE = r"/targets/.*model\.onnx"


def test_of_two_syncs_at_once_the_second_is_told_to_come_back(
    device: SyncingDevice, server: WebServer
) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(handler: web.Handler, content: bytes) -> None:
        inside.set()
        assert go.wait(60)
        web.whole(handler, content)

    server.fault("timestamp", wait, times=1)
    done: list[Any] = []
    first = threading.Thread(target=lambda: done.append(patient(device).sync(activate=True)))
    first.start()
    assert inside.wait(60)
    with pytest.raises(TemporaryError, match="another sync is under way") as caught:
        device.sync(activate=True)
    assert caught.value.exit_code == 75
    go.set()
    first.join()
    assert done[0].models[0].outcome == "updated"
    assert device.sync(activate=True).models[0].outcome == "current"


def patient(device: SyncingDevice) -> SyncingDevice:
    """The same device with a network that may keep it waiting."""
    device.min_rate = MinRate()
    return device


def test_two_who_want_the_same_content_fetch_it_once(tmp_path: Path, server: WebServer) -> None:
    """The detector's first start beside a sync: the second waits for the first."""
    content = bytes(range(256)) * 1000
    server.site = {"x/model.onnx": content}
    wanted = Wanted(f"{server.url}/x/model.onnx", sha256(content), len(content))
    found: list[Path] = []
    cache = ContentCache(tmp_path / "cache", Fetcher())
    threads = [threading.Thread(target=lambda: found.append(cache.get(wanted))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == content for path in found] == [True] * 4
    assert len(server.requests) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [wanted.sha256]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def no_larger_than(size_bytes: int) -> Iterator[None]:
    """Let every write beyond a size fail, as on a full disk, half-way through the file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_on_the_way_changes_nothing(
    device: SyncingDevice, owner: SimulatedRepository
) -> None:
    device.sync(activate=True)
    owner.add(make_files("1.1.0", network=bytes(300_000)))
    owner.publish()
    with no_larger_than(100_000), pytest.raises(AgentError, match="no room to write") as caught:
        device.sync(activate=True)
    assert caught.value.exit_code == 75
    assert device.linked() == "1.0.0"
    assert list((device.store / ".staging").iterdir()) == []
    assert device.sync(activate=True).models[0].outcome == "updated"
    assert device.linked() == "1.1.0"


def test_a_disk_that_is_full_already_is_not_filled_further(
    device: SyncingDevice,
    server: WebServer,
    owner: SimulatedRepository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device.sync(activate=True)
    owner.add(make_files("1.1.0"))
    owner.publish()
    usage = namedtuple("usage", ("total", "used", "free"))  # noqa: PYI024 - as shutil's
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
        with pytest.raises(AgentError, match="no room to write") as caught:
            device.sync(activate=True)
    assert caught.value.exit_code == 75
    assert server.asked(r"/targets/tiny/1\.1\.0/") == []
    last = report.read(device.store)
    assert last is not None
    # Nothing was rejected: nothing stands as an alert.
    assert (last.ok, last.alert) == (False, "")


def test_a_disk_that_fills_up_with_metadata_changes_nothing(
    device: SyncingDevice, owner: SimulatedRepository
) -> None:
    device.sync(activate=True)
    for minor in range(1, 20):
        owner.add(make_files(f"1.{minor}.0"))
    owner.publish()
    with no_larger_than(10_000), pytest.raises(AgentError, match="no room to write") as caught:
        device.sync(activate=True)
    assert caught.value.exit_code == 75
    assert device.linked() == "1.0.0"
    device.sync(activate=True)
    assert device.linked() == "1.19.0"


def test_what_a_power_cut_left_behind_is_cleared_away(device: SyncingDevice) -> None:
    left = device.store / ".staging" / "sync-left"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    device.sync()
    assert list((device.store / ".staging").iterdir()) == []


def test_a_damaged_version_in_the_store_is_fetched_anew(
    device: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    device.sync()
    (path,) = (device.store / ".versions" / NAME).glob("1.0.0-*/model.onnx")
    path.write_bytes(b"damaged")
    device.sync(activate=True)
    assert [each.problem for each in inventory.verify(device.store, [NAME])] == [""]
    assert len(server.asked(FILE)) == 2
