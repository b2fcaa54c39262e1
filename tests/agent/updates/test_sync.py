"""One sync of a store with a repository: what is taken, what stays, and what is told of it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest
import web_server as web
from syncing_device import NAME, make_files

from fer_agent.config.model import DetectorConfig
from fer_agent.errors import AgentError, UsageError
from fer_agent.models.store import file_sha256
from fer_agent.updates import report
from fer_agent.updates.activation import state
from fer_agent.updates.activation.journal import ModelVersion, now
from fer_agent.updates.activation.state import RejectedVersion
from fer_agent.updates.activation.versions import Keep
from fer_agent.updates.cache import Wanted
from fer_agent.updates.detector_file import YUNET, locate
from fer_agent.updates.sync import SyncError, SyncRequest

if TYPE_CHECKING:
    from pathlib import Path

    from simulated_repository import SimulatedRepository
    from syncing_device import SyncingDevice
    from web_server import WebServer

FILE = r"/targets/.*model\.onnx"


def test_what_is_newer_is_taken_and_told(device: SyncingDevice, owner: SimulatedRepository) -> None:
    (told,) = device.sync(activate=True).models
    assert (told.outcome, told.current, told.available) == ("updated", "1.0.0", "1.0.0")
    assert device.linked() == "1.0.0"
    (told,) = device.sync(activate=True).models
    assert (told.outcome, told.current) == ("current", "1.0.0")
    owner.add(make_files("1.10.0"))
    owner.add(make_files("1.9.0"))
    owner.publish()
    (told,) = device.sync(activate=True).models
    assert (told.outcome, told.current, device.linked()) == ("updated", "1.10.0", "1.10.0")
    last = report.read(device.store)
    assert last is not None
    assert (last.ok, last.alert, last.last_failure) == (True, "", None)


def test_a_dry_run_looks_and_changes_nothing(device: SyncingDevice, server: WebServer) -> None:
    (told,) = device.sync(dry_run=True).models
    assert (told.outcome, told.current, told.available) == ("available", None, "1.0.0")
    assert server.asked("/targets/") == []
    assert device.versions() == []
    assert report.read(device.store) is None


def test_without_activation_a_version_is_fetched_once_and_switched_to_from_the_store(
    device: SyncingDevice, server: WebServer
) -> None:
    for _ in range(2):
        assert device.sync().models[0].outcome == "installed"
    assert device.linked() is None
    assert device.sync(activate=True).models[0].outcome == "updated"
    assert device.linked() == "1.0.0"
    assert len(server.asked(FILE)) == 1


def test_a_version_that_was_retired_is_left_for_the_newest_listed(
    device: SyncingDevice, owner: SimulatedRepository
) -> None:
    device.sync(activate=True)
    owner.add(make_files("2.0.0"))
    owner.publish()
    device.sync(activate=True)
    owner.remove(NAME, "2.0.0")
    owner.publish()
    (told,) = device.sync(activate=True).models
    assert (told.outcome, device.linked()) == ("updated", "1.0.0")


def test_old_versions_beyond_those_kept_are_removed(
    device: SyncingDevice, owner: SimulatedRepository
) -> None:
    device.keep = Keep(versions=2)
    for minor in range(4):
        owner.add(make_files(f"1.{minor}.0"))
        owner.publish()
        device.sync(activate=True)
        confirm(device)
    assert device.versions() == ["1.3.0", "1.2.0"]


def confirm(device: SyncingDevice) -> None:
    from fer_agent.updates.activation.pending import settle

    pending = settle(device.store, NAME)
    assert pending is not None
    pending.confirm()


def test_a_refused_version_is_not_fetched_again_until_a_new_one_comes(
    device: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    device.sync(activate=True)
    files = make_files("1.1.0")
    owner.add(files)
    owner.publish()
    digest = owner.targets.signed.targets[f"{NAME}/1.1.0/manifest.json"].hashes["sha256"]
    build = ModelVersion(version="1.1.0", manifest_sha256=digest)
    state.reject(device.store, RejectedVersion(name=NAME, build=build, reason="too slow", at=now()))
    for _ in range(2):
        done = device.sync(activate=True)
        assert done.ok
        assert done.models[0].outcome == "refused"
        assert done.alert == f"{NAME} 1.1.0 was refused: too slow"
    assert server.asked(r"/targets/tiny/1\.1\.0/") == []
    assert device.linked() == "1.0.0"
    owner.add(make_files("1.2.0"))
    owner.publish()
    done = device.sync(activate=True)
    assert (done.models[0].outcome, done.alert, device.linked()) == ("updated", "", "1.2.0")


def test_a_version_for_newer_agents_is_named_and_the_older_one_taken(
    device: SyncingDevice, owner: SimulatedRepository
) -> None:
    owner.add(make_files("2.0.0"), minimum_agent_version="7.1.0")
    owner.publish()
    assert device.sync(activate=True).models[0].outcome == "updated"
    (told,) = device.sync(activate=True).models
    assert (told.outcome, told.current, told.available) == ("too-new", "1.0.0", "2.0.0")
    assert told.reason == f"{NAME} 2.0.0 needs fer-agent 7.1.0 or later"
    device.agent_version = "7.1.0"
    device.sync(activate=True)
    assert device.linked() == "2.0.0"


@pytest.mark.parametrize("needs", ["7.1.0", "0.1.0"], ids=["says so", "does not say"])
def test_an_old_agent_refuses_a_new_manifest_schema_and_names_the_version_needed(
    device: SyncingDevice, owner: SimulatedRepository, needs: str
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
        device.sync(activate=True)
    assert caught.value.exit_code == 76
    assert "upgrade fer-agent" in caught.value.remedy
    assert device.versions() == []


def test_a_version_that_is_too_large_is_refused_before_anything_is_fetched(
    device: SyncingDevice, owner: SimulatedRepository, server: WebServer
) -> None:
    owner.add(make_files("1.1.0", network=bytes(10_000_000)))
    owner.publish()
    with pytest.raises(AgentError, match="more than 10000000") as caught:
        device.sync(activate=True)
    assert caught.value.exit_code == 76
    assert server.asked(r"/targets/") == []


def test_a_model_that_is_not_there_is_named_with_those_that_are(device: SyncingDevice) -> None:
    with pytest.raises(AgentError, match="has no model large") as caught:
        device.sync("large")
    assert caught.value.exit_code == UsageError.exit_code
    assert NAME in caught.value.remedy
    assert device.work.run(SyncRequest(optional_names=("large",))).models == ()


def test_one_models_fault_keeps_the_others_from_nothing(
    device: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    owner.add(make_files("1.0.0", name="another"))
    owner.publish()
    server.fault(r"/targets/another/.*model\.onnx", web.one_byte_other)
    with pytest.raises(SyncError, match="not the expected") as caught:
        device.sync("another", NAME, activate=True)
    outcomes = {each.name: each.outcome for each in caught.value.report.models}
    assert outcomes == {"another": "refused", NAME: "updated"}
    assert device.linked() == "1.0.0"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_every_byte_of_progress_is_told(device: SyncingDevice, owner: SimulatedRepository) -> None:
    owner.add(make_files("1.1.0", network=bytes(200_000)))
    owner.publish()
    seen: list[tuple[int, int]] = []
    device.sync(progress=lambda done, size: seen.append((done, size)))
    assert len({size for _, size in seen}) == 1
    done = [done for done, _ in seen]
    assert done == sorted(done)
    assert done[-1] == seen[-1][1] > 200_000


def test_a_face_detector_is_a_target_like_any_other(
    device: SyncingDevice, server: WebServer, owner: SimulatedRepository, shared: Path
) -> None:
    """Synced, tried for real, used; and the first start's download was the same content."""
    content = (shared / "models" / YUNET.name).read_bytes()
    server.site["upstream/yunet.onnx"] = content
    pinned = Wanted(f"{server.url}/upstream/yunet.onnx", YUNET.sha256, YUNET.size_bytes)
    first = locate(DetectorConfig(), device.store, source=pinned)
    assert first.parent.name == "detectors"
    device.sync(activate=True)  # something else comes and goes through the cache
    manifest = {
        "schema_version": 1, "name": "yunet", "version": "2023.3.0", "task": "face-detection",
        "files": [{"path": "yunet.onnx", "precision": "fp32", "sha256": YUNET.sha256,
                   "bytes": YUNET.size_bytes}],
        "source": "https://example.org/yunet.onnx", "licence": "Apache-2.0",
    }  # fmt: skip
    owner.add({"manifest.json": json.dumps(manifest).encode(), "yunet.onnx": content})
    owner.publish()
    assert device.sync("yunet", activate=True).models[0].outcome == "updated"
    assert server.asked(r"/targets/yunet/.*onnx") == []
    used = locate(DetectorConfig(), device.store, source=pinned)
    assert used == device.store / ".versions" / "yunet" / used.parent.name / "yunet.onnx"
    assert file_sha256(used) == YUNET.sha256


def test_a_face_detector_that_does_not_work_is_refused(
    device: SyncingDevice, owner: SimulatedRepository
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
        device.sync("yunet", activate=True)
    assert caught.value.exit_code == 76
    assert device.linked("yunet") is None
