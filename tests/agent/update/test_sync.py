"""One sync of a store with a repository: what is taken, what stays, and what is told of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import shutil
import threading
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest
import web_server as web
from syncing_device import NAME, make_files

from fer_agent.activation import state
from fer_agent.activation.change import Change
from fer_agent.activation.journal import Build, now
from fer_agent.activation.state import Refusal
from fer_agent.activation.trial import Trial
from fer_agent.activation.trial_child import Report
from fer_agent.activation.versions import Keep, Versions
from fer_agent.config import DetectorConfig
from fer_agent.detector import yunet_file
from fer_agent.detector.yunet_file import YUNET, locate
from fer_agent.errors import AgentError, TemporaryError, UsageError
from fer_agent.model_store import file_sha256
from fer_agent.update import inventory, report
from fer_agent.update.cache import ContentCache, Wanted
from fer_agent.update.connection import Pace
from fer_agent.update.fetch import Fetcher
from fer_agent.update.switch import Switch
from fer_agent.update.sync import SyncError, Wish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from simulated_repository import SimulatedRepository
    from syncing_device import Device
    from web_server import WebServer

FILE = r"/targets/.*model\.onnx"


class Untried(Trial):
    """Passes everything: these networks are no ONNX, and trials have tests of their own."""

    def run(self, candidate: Path, current: Path | None) -> Report:
        return Report()


@pytest.fixture
def active(device: Device, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device that switches to what it fetches."""
    make = type(device).work.fget
    assert make is not None

    def work(self: Device) -> Any:
        made = make(self)
        change = Change(self.store, Untried(), Keep(versions=2))
        object.__setattr__(made, "switch", Switch(self.store, change, Keep(versions=2)))
        return made

    monkeypatch.setattr(type(device), "work", property(work))
    return device


def linked(device: Device, name: str = NAME) -> str | None:
    key = Versions(device.store, name).linked()
    return None if key is None else key.partition("-")[0]


def test_what_is_newer_is_taken_and_told(active: Device, owner: SimulatedRepository) -> None:
    (told,) = active.sync(activate=True).models
    assert (told.outcome, told.current, told.available) == ("updated", "1.0.0", "1.0.0")
    assert linked(active) == "1.0.0"
    (told,) = active.sync(activate=True).models
    assert (told.outcome, told.current) == ("current", "1.0.0")
    owner.add(make_files("1.10.0"))
    owner.add(make_files("1.9.0"))
    owner.publish()
    (told,) = active.sync(activate=True).models
    assert (told.outcome, told.current, linked(active)) == ("updated", "1.10.0", "1.10.0")
    last = report.read(active.store)
    assert last is not None
    assert (last.ok, last.alert, last.last_failure) == (True, "", None)


def test_a_dry_run_looks_and_changes_nothing(active: Device, server: WebServer) -> None:
    (told,) = active.sync(dry_run=True).models
    assert (told.outcome, told.current, told.available) == ("available", None, "1.0.0")
    assert server.asked("/targets/") == []
    assert active.versions() == []
    assert report.read(active.store) is None


def test_without_activation_a_version_is_fetched_once_and_switched_to_from_the_store(
    active: Device, server: WebServer
) -> None:
    for _ in range(2):
        assert active.sync().models[0].outcome == "installed"
    assert linked(active) is None
    assert active.sync(activate=True).models[0].outcome == "updated"
    assert linked(active) == "1.0.0"
    assert len(server.asked(FILE)) == 1


def test_a_version_that_was_retired_is_left_for_the_newest_listed(
    active: Device, owner: SimulatedRepository
) -> None:
    active.sync(activate=True)
    owner.add(make_files("2.0.0"))
    owner.publish()
    active.sync(activate=True)
    owner.remove(NAME, "2.0.0")
    owner.publish()
    (told,) = active.sync(activate=True).models
    assert (told.outcome, linked(active)) == ("updated", "1.0.0")


def test_old_versions_beyond_those_kept_are_removed(
    active: Device, owner: SimulatedRepository
) -> None:
    for minor in range(4):
        owner.add(make_files(f"1.{minor}.0"))
        owner.publish()
        active.sync(activate=True)
        confirm(active)
    assert active.versions() == ["1.3.0", "1.2.0"]


def confirm(device: Device) -> None:
    from fer_agent.activation.probation import settle

    lease = settle(device.store, NAME)
    assert lease is not None
    lease.confirm()


def test_a_refused_version_is_not_fetched_again_until_a_new_one_comes(
    active: Device, server: WebServer, owner: SimulatedRepository
) -> None:
    active.sync(activate=True)
    files = make_files("1.1.0")
    owner.add(files)
    owner.publish()
    digest = owner.targets.signed.targets[f"{NAME}/1.1.0/manifest.json"].hashes["sha256"]
    build = Build(version="1.1.0", manifest_sha256=digest)
    state.refuse(active.store, Refusal(name=NAME, build=build, reason="too slow", at=now()))
    for _ in range(2):
        done = active.sync(activate=True)
        assert done.ok
        assert done.models[0].outcome == "refused"
        assert done.alert == f"{NAME} 1.1.0 was refused: too slow"
    assert server.asked(r"/targets/tiny/1\.1\.0/") == []
    assert linked(active) == "1.0.0"
    owner.add(make_files("1.2.0"))
    owner.publish()
    done = active.sync(activate=True)
    assert (done.models[0].outcome, done.alert, linked(active)) == ("updated", "", "1.2.0")


def test_a_version_for_newer_agents_is_named_and_the_older_one_taken(
    active: Device, owner: SimulatedRepository
) -> None:
    owner.add(make_files("2.0.0"), minimum_agent_version="7.1.0")
    owner.publish()
    assert active.sync(activate=True).models[0].outcome == "updated"
    (told,) = active.sync(activate=True).models
    assert (told.outcome, told.current, told.available) == ("too-new", "1.0.0", "2.0.0")
    assert told.reason == f"{NAME} 2.0.0 needs fer-agent 7.1.0 or later"
    active.agent_version = "7.1.0"
    active.sync(activate=True)
    assert linked(active) == "2.0.0"


@pytest.mark.parametrize("needs", ["7.1.0", "0.1.0"], ids=["says so", "does not say"])
def test_an_old_agent_refuses_a_new_manifest_schema_and_names_the_version_needed(
    active: Device, owner: SimulatedRepository, needs: str
) -> None:
    """A format that this agent has never heard of, published by a newer `fer-train`."""
    owner.remove(NAME, "1.0.0")
    owner.add(make_files("3.0.0"), minimum_agent_version=needs)
    listed = owner.targets.signed.targets[f"{NAME}/3.0.0/manifest.json"]
    assert listed.custom is not None
    content = {"schema_version": 2, "name": NAME, "version": "3.0.0", "networks": []}
    future = {**listed.custom, "manifest": json.dumps(content)}
    owner.add_target(listed.path, json.dumps(content).encode(), future)
    owner.publish()
    wanted = "fer-agent 7.1.0" if needs == "7.1.0" else "a newer fer-agent"
    with pytest.raises(AgentError, match=f"{NAME} 3.0.0 needs {wanted} or later") as caught:
        active.sync(activate=True)
    assert caught.value.exit_code == 76
    assert "upgrade fer-agent" in caught.value.remedy
    assert active.versions() == []


def test_a_version_that_is_too_large_is_refused_before_anything_is_fetched(
    active: Device, owner: SimulatedRepository, server: WebServer
) -> None:
    owner.add(make_files("1.1.0", network=bytes(10_000_000)))
    owner.publish()
    with pytest.raises(AgentError, match="more than 10000000") as caught:
        active.sync(activate=True)
    assert caught.value.exit_code == 76
    assert server.asked(r"/targets/") == []


def test_a_model_that_is_not_there_is_named_with_those_that_are(device: Device) -> None:
    with pytest.raises(AgentError, match="has no model large") as caught:
        device.sync("large")
    assert caught.value.exit_code == UsageError.exit_code
    assert NAME in caught.value.remedy
    assert device.work.run(Wish(if_there=("large",))).models == ()


def test_one_models_fault_keeps_the_others_from_nothing(
    active: Device, server: WebServer, owner: SimulatedRepository
) -> None:
    owner.add(make_files("1.0.0", name="another"))
    owner.publish()
    server.fault(r"/targets/another/.*model\.onnx", web.one_byte_other)
    with pytest.raises(SyncError, match="not the expected") as caught:
        active.sync("another", NAME, activate=True)
    outcomes = {each.name: each.outcome for each in caught.value.report.models}
    assert outcomes == {"another": "refused", NAME: "updated"}
    assert linked(active) == "1.0.0"


def test_of_two_syncs_at_once_the_second_is_told_to_come_back(
    active: Device, server: WebServer
) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(handler: web.Handler, content: bytes) -> None:
        inside.set()
        assert go.wait(60)
        web.whole(handler, content)

    server.fault("timestamp", wait, times=1)
    done: list[Any] = []
    first = threading.Thread(target=lambda: done.append(patient(active).sync(activate=True)))
    first.start()
    assert inside.wait(60)
    with pytest.raises(TemporaryError, match="another sync is under way") as caught:
        active.sync(activate=True)
    assert caught.value.exit_code == 75
    go.set()
    first.join()
    assert done[0].models[0].outcome == "updated"
    assert active.sync(activate=True).models[0].outcome == "current"


def patient(device: Device) -> Device:
    """The same device with a network that may keep it waiting."""
    device.pace = Pace()
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
    active: Device, owner: SimulatedRepository
) -> None:
    active.sync(activate=True)
    owner.add(make_files("1.1.0", network=bytes(300_000)))
    owner.publish()
    with no_larger_than(100_000), pytest.raises(AgentError, match="no room to write") as caught:
        active.sync(activate=True)
    assert caught.value.exit_code == 75
    assert linked(active) == "1.0.0"
    assert list((active.store / ".staging").iterdir()) == []
    assert active.sync(activate=True).models[0].outcome == "updated"
    assert linked(active) == "1.1.0"


def test_a_disk_that_is_full_already_is_not_filled_further(
    active: Device, server: WebServer, owner: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    active.sync(activate=True)
    owner.add(make_files("1.1.0"))
    owner.publish()
    usage = namedtuple("usage", ("total", "used", "free"))  # noqa: PYI024 - as shutil's
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
        with pytest.raises(AgentError, match="no room to write") as caught:
            active.sync(activate=True)
    assert caught.value.exit_code == 75
    assert server.asked(r"/targets/tiny/1\.1\.0/") == []
    last = report.read(active.store)
    assert last is not None
    # No refusal: nothing stands as an alert.
    assert (last.ok, last.alert) == (False, "")


def test_a_disk_that_fills_up_with_metadata_changes_nothing(
    active: Device, owner: SimulatedRepository
) -> None:
    active.sync(activate=True)
    for minor in range(1, 20):
        owner.add(make_files(f"1.{minor}.0"))
    owner.publish()
    with no_larger_than(10_000), pytest.raises(AgentError, match="no room to write") as caught:
        active.sync(activate=True)
    assert caught.value.exit_code == 75
    assert linked(active) == "1.0.0"
    active.sync(activate=True)
    assert linked(active) == "1.19.0"


def test_what_a_power_cut_left_behind_is_cleared_away(device: Device) -> None:
    left = device.store / ".staging" / "sync-left"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    device.sync()
    assert list((device.store / ".staging").iterdir()) == []


def test_a_damaged_version_in_the_store_is_fetched_anew(
    active: Device, server: WebServer, owner: SimulatedRepository
) -> None:
    active.sync()
    (path,) = (active.store / ".versions" / NAME).glob("1.0.0-*/model.onnx")
    path.write_bytes(b"damaged")
    active.sync(activate=True)
    assert [each.problem for each in inventory.verify(active.store, [NAME])] == [""]
    assert len(server.asked(FILE)) == 2


def test_every_byte_of_progress_is_told(device: Device, owner: SimulatedRepository) -> None:
    owner.add(make_files("1.1.0", network=bytes(200_000)))
    owner.publish()
    seen: list[tuple[int, int]] = []
    device.sync(progress=lambda done, size: seen.append((done, size)))
    assert len({size for _, size in seen}) == 1
    done = [done for done, _ in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1][1] > 200_000


def test_a_face_detector_is_a_target_like_any_other(
    active: Device, server: WebServer, owner: SimulatedRepository, shared: Path
) -> None:
    """Synced, tried for real, used; and the first start's download was the same content."""
    content = (shared / "models" / YUNET.name).read_bytes()
    server.site["upstream/yunet.onnx"] = content
    pinned = yunet_file.PinnedFile(
        f"{server.url}/upstream/yunet.onnx", YUNET.sha256, YUNET.size_bytes
    )
    first = locate(DetectorConfig(), active.store, source=pinned)
    assert first.parent.name == "detectors"
    active.sync(activate=True)  # something else comes and goes through the cache
    manifest = {
        "schema_version": 1, "name": "yunet", "version": "2023.3.0", "task": "face-detection",
        "files": [{"path": "yunet.onnx", "precision": "fp32", "sha256": YUNET.sha256,
                   "bytes": YUNET.size_bytes}],
        "source": "https://example.org/yunet.onnx", "licence": "Apache-2.0",
    }  # fmt: skip
    owner.add({"manifest.json": json.dumps(manifest).encode(), "yunet.onnx": content})
    owner.publish()
    assert active.sync("yunet", activate=True).models[0].outcome == "updated"
    assert server.asked(r"/targets/yunet/.*onnx") == []
    used = locate(DetectorConfig(), active.store, source=pinned)
    assert used == active.store / ".versions" / "yunet" / used.parent.name / "yunet.onnx"
    assert file_sha256(used) == YUNET.sha256


def test_a_face_detector_that_does_not_work_is_refused(
    active: Device, owner: SimulatedRepository
) -> None:
    content = b"no network"
    manifest = {
        "schema_version": 1, "name": "yunet", "version": "2024.1.0", "task": "face-detection",
        "files": [{"path": "yunet.onnx", "precision": "fp32", "sha256": sha256(content),
                   "bytes": len(content)}],
        "source": "https://example.org/yunet.onnx", "licence": "Apache-2.0",
    }  # fmt: skip
    owner.add({"manifest.json": json.dumps(manifest).encode(), "yunet.onnx": content})
    owner.publish()
    with pytest.raises(AgentError, match="face detector does not work here") as caught:
        active.sync("yunet", activate=True)
    assert caught.value.exit_code == 76
    assert linked(active, "yunet") is None
