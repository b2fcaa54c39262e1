"""The attacks that The Update Framework names (specification 1.0, section 1.5.2), one by one.

The attacker sits on the path, or has some of the keys. In every case the version that was there
stays, whole, and nothing of the attacker's is left in the store.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import web_server as web
from securesystemslib.signer import CryptoSigner
from simulated_repository import SimulatedRepository
from syncing_device import NAME, SyncingDevice, make_files
from tuf.api.metadata import Metadata, Root

from fer_agent.errors import AgentError
from fer_agent.models.store import verify_file
from fer_agent.updates import report
from fer_agent.updates.inventory import verify

if TYPE_CHECKING:
    from web_server import WebServer

REFUSED = 76
UNREACHABLE = 69


@pytest.fixture
def synced(device: SyncingDevice) -> SyncingDevice:
    """A device that has version 1.0.0."""
    assert device.sync().models[0].outcome == "installed"
    return device


def fails(device: SyncingDevice, exit_code: int, *, says: str, version: str = "1.0.0") -> None:
    """Check that a sync fails, says why, and has changed nothing."""
    with pytest.raises(AgentError, match=says) as caught:
        device.sync()
    assert caught.value.exit_code == exit_code
    assert caught.value.remedy
    assert device.versions() == [version]
    assert [each.problem for each in verify(device.store, [NAME])] == [""]
    assert not list((device.store / ".staging").iterdir())
    said = report.read(device.store)
    assert said is not None
    assert not said.ok
    assert said.last_failure is not None
    assert said.last_failure.exit_code == exit_code
    assert bool(said.alert) == (exit_code == REFUSED)


def test_arbitrary_installation_by_a_server_without_keys(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    attacker = SimulatedRepository(owner.now)
    attacker.add(make_files("9.0.0"))
    attacker.publish()
    server.site = attacker.site
    fails(synced, REFUSED, says="not signed by enough of its keys")


def test_arbitrary_installation_in_place_of_a_listed_file(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    owner.add(make_files("1.1.0"))
    owner.publish()
    server.fault(r"/targets/.*model\.onnx", web.instead(b"arbitrary software"))
    fails(synced, UNREACHABLE, says="ended at byte 18 of")
    size = len(make_files("1.1.0")["model.onnx"])
    server.fault(r"/targets/.*model\.onnx", web.instead(b"x" * size))
    fails(synced, REFUSED, says="not the expected")


@pytest.mark.parametrize("file", ["timestamp", "snapshot", "targets", "root"])
def test_endless_data_as_metadata(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository, file: str
) -> None:
    owner.add(make_files("1.1.0"))
    owner.publish()
    before = server.sent_bytes
    server.fault(rf"/metadata/(\d+\.)?{file}\.json", web.endless)
    fails(synced, REFUSED, says="more than its metadata can be")
    # The limit, and what the sockets' buffers took.
    assert server.sent_bytes - before < 20_000_000


def test_endless_data_as_a_file(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    owner.add(make_files("1.1.0"))
    owner.publish()
    server.fault(r"/targets/.*model\.onnx", web.endless)
    fails(synced, REFUSED, says="longer than")
    assert sum(path.stat().st_size for path in (synced.store / ".cache").iterdir()) < 20_000


@pytest.mark.parametrize("how", [web.dribble, web.dribble_headers])
@pytest.mark.parametrize("file", [r"timestamp\.json", r"model\.onnx"])
def test_slow_retrieval(
    synced: SyncingDevice,
    server: WebServer,
    owner: SimulatedRepository,
    file: str,
    how: web.Behaviour,
) -> None:
    owner.add(make_files("1.1.0"))
    owner.publish()
    server.fault(file, how)
    fails(synced, UNREACHABLE, says="bytes came in")
    server.heal()
    synced.sync()
    assert synced.versions() == ["1.1.0", "1.0.0"]


def test_fast_forward_is_survived_by_rotating_the_keys(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    thief = owner.twin()
    thief.snapshot.signed.version = 2**31 - 2
    thief.timestamp.signed.version = 2**31 - 2
    thief.refresh()
    server.site = thief.site
    synced.sync()
    # The owner's true versions are far behind now.
    server.site = owner.site
    fails(synced, REFUSED, says="must be >= 2147483647")
    owner.rotate("timestamp")
    owner.rotate("snapshot")
    owner.add(make_files("1.1.0"))
    owner.publish()
    synced.sync()
    assert synced.versions() == ["1.1.0", "1.0.0"]


def test_freeze_is_noticed_when_the_old_metadata_expires(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    server.site = dict(owner.site)
    owner.now += timedelta(days=5)
    owner.add(make_files("1.1.0"))
    owner.publish()
    synced.clock.pass_days(6)
    assert synced.sync().models[0].available == "1.0.0"
    synced.clock.pass_days(2)
    fails(synced, REFUSED, says="timestamp.json is expired")
    server.site = owner.site
    synced.sync()
    assert synced.versions() == ["1.1.0", "1.0.0"]


def test_freeze_with_a_clock_turned_back(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    server.site = dict(owner.site)
    owner.now += timedelta(days=6)
    owner.publish()
    other = owner.twin()
    synced.clock.pass_days(6)
    frozen, server.site = server.site, other.site
    synced.sync()  # a good sync eight days later would remember the time
    synced.clock.pass_days(2)
    synced.sync()
    server.site = frozen
    synced.clock.pass_days(-1000)
    synced.clock.synced = False
    # Even with its memory of versions gone, the device remembers what time it was.
    for path in (synced.store / ".tuf").glob("*.json"):
        path.unlink()
    fails(synced, REFUSED, says="timestamp.json is expired")


def test_mix_and_match_of_lists_from_different_times(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    old = owner.site["metadata/2.targets.json"]
    owner.add(make_files("1.1.0"))
    owner.publish()
    # The snapshot first: what verified stays with the device, and is not asked for again.
    server.fault(
        r"/metadata/3\.snapshot\.json", web.instead(owner.site["metadata/2.snapshot.json"])
    )
    fails(synced, REFUSED, says="snapshot version 3, got 2")
    server.heal()
    server.fault(r"/metadata/3\.targets\.json", web.instead(old))
    fails(synced, REFUSED, says="targets v3, got v2")


def test_rollback_of_the_timestamp(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    old = dict(owner.site)
    owner.remove(NAME, "1.0.0")
    owner.add(make_files("1.1.0"))
    owner.publish()
    synced.sync()
    server.site = old
    fails_at(synced, says="timestamp version 2 must be >= 3", versions=["1.1.0", "1.0.0"])


def fails_at(device: SyncingDevice, *, says: str, versions: list[str]) -> None:
    with pytest.raises(AgentError, match=says) as caught:
        device.sync()
    assert caught.value.exit_code == REFUSED
    assert device.versions() == versions


def test_rollback_of_the_targets_with_stolen_online_keys(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    thief = owner.twin()
    owner.add(make_files("1.1.0"))
    owner.publish()
    synced.sync()
    # Snapshot and timestamp are newer than the device's, the list of targets is older.
    thief.refresh()
    thief.refresh()
    server.site = thief.site
    fails_at(synced, says=r"Expected targets\.json version 2, got 3", versions=["1.1.0", "1.0.0"])


def test_wrong_software_under_a_models_name(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    """A model that its owner signed, offered in the place of another."""
    files = make_files("5.0.0", name="other")
    owner.add(files)
    custom = owner.targets.signed.targets["other/5.0.0/manifest.json"].custom
    assert custom is not None
    owner.add_target(f"{NAME}/5.0.0/manifest.json", files["manifest.json"], dict(custom))
    owner.add_target(f"{NAME}/5.0.0/model.onnx", files["model.onnx"], None)
    owner.publish()
    fails(synced, REFUSED, says="says that it is other/5.0.0/manifest.json")
    relabelled = {**custom, "name": NAME}
    owner.add_target(f"{NAME}/5.0.0/manifest.json", files["manifest.json"], relabelled)
    owner.publish()
    fails(synced, REFUSED, says="holds other 5.0.0")


def test_substituted_target(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    """A file of the right size and with a name of the right hash, but another version's."""
    for version in ("1.1.0", "1.2.0"):
        owner.add(make_files(version, network=version.encode() * 1000))
    owner.publish()
    older, newer = (
        owner.place(f"{NAME}/{version}/model.onnx", version.encode() * 1000)
        for version in ("1.1.0", "1.2.0")
    )
    owner.site[newer] = owner.site[older]
    fails(synced, REFUSED, says="not the expected")


def test_a_listed_file_that_its_manifest_does_not_name(
    synced: SyncingDevice, owner: SimulatedRepository
) -> None:
    files = make_files("1.1.0")
    owner.add(files)
    listed = owner.targets.signed.targets[f"{NAME}/1.1.0/model.onnx"]
    owner.add_target(listed.path, b"another network", listed.custom)
    owner.publish()
    fails(synced, REFUSED, says="another file than its manifest names")


def test_a_manifest_file_that_differs_from_the_signed_entry(
    synced: SyncingDevice, owner: SimulatedRepository
) -> None:
    owner.add(make_files("1.1.0"))
    listed = owner.targets.signed.targets[f"{NAME}/1.1.0/manifest.json"]
    other = make_files("1.1.0", labels=["sad", "happy"])["manifest.json"]
    owner.add_target(listed.path, other, listed.custom)
    owner.publish()
    fails(synced, REFUSED, says="differs from the one in")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_stolen_key_is_worth_nothing_after_its_rotation(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository, role: str
) -> None:
    stolen = owner.rotate(role)
    owner.publish()
    synced.sync()
    thief = owner.twin()
    thief.keys[role] = stolen
    thief.add(make_files("6.6.6"))
    thief.publish()
    server.site = thief.site
    fails(synced, REFUSED, says="not signed by enough of its keys")
    server.site = owner.site
    owner.add(make_files("1.1.0"))
    owner.publish()
    synced.sync()
    assert synced.versions() == ["1.1.0", "1.0.0"]


def test_rotation_of_the_root_key(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    stolen = owner.rotate("root")
    owner.add(make_files("1.1.0"))
    owner.publish()
    synced.sync()
    assert synced.versions() == ["1.1.0", "1.0.0"]
    thief = owner.twin()
    thief.keys["root"] = stolen
    thief.rotate("targets")
    thief.add(make_files("6.6.6"))
    thief.publish()
    server.site = thief.site
    fails_at(synced, says="not signed by enough", versions=["1.1.0", "1.0.0"])


def test_a_root_that_only_its_new_keys_have_signed(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    usurper = owner.twin()
    usurper.keys["root"] = []
    for signer in owner.keys["root"]:
        usurper.root.signed.revoke_key(signer.public_key.keyid, "root")
    usurper.keys["root"] = [CryptoSigner.generate_ed25519()]
    usurper.root.signed.add_key(usurper.keys["root"][0].public_key, "root")
    usurper.publish_root()
    server.site = usurper.site
    fails(synced, REFUSED, says="not signed by enough of its keys")


def test_threshold_that_is_not_met(device: SyncingDevice, server: WebServer) -> None:
    owner = SimulatedRepository(targets_threshold=2)
    owner.add(make_files("1.0.0"))
    owner.publish()
    server.site = owner.site
    device.root_file.write_bytes(owner.trust_anchor())
    device.sync()
    thief = owner.twin()
    thief.keys["targets"].pop()
    thief.add(make_files("6.6.6"))
    thief.publish()
    server.site = thief.site
    fails(device, REFUSED, says="signed by 1/2 keys")


def test_one_key_that_signs_twice_is_one_signature(
    device: SyncingDevice, server: WebServer
) -> None:
    owner = SimulatedRepository(targets_threshold=2)
    owner.add(make_files("1.0.0"))
    owner.publish()
    server.site = owner.site
    device.root_file.write_bytes(owner.trust_anchor())
    device.sync()
    thief = owner.twin()
    thief.keys["targets"][1] = thief.keys["targets"][0]
    thief.add(make_files("6.6.6"))
    thief.publish()
    server.site = thief.site
    fails(device, REFUSED, says="signed by 1/2 keys")


def test_expired_root_with_a_wrong_local_clock(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    owner.now += timedelta(days=300)
    owner.publish()
    synced.clock.pass_days(300)
    synced.sync()
    synced.clock.pass_days(66)
    owner.now += timedelta(days=66)
    owner.publish()
    fails(synced, REFUSED, says=r"root\.json is expired")
    # The board comes up at the turn of the epoch: what it knew before still counts.
    synced.clock.pass_days(-20_000)
    synced.clock.synced = False
    owner.publish_root()
    synced.sync()
    assert synced.versions() == ["1.0.0"]


@pytest.mark.parametrize("synced_clock", [False, None])
def test_a_clock_that_nothing_keeps_right_lets_nothing_expire(
    device: SyncingDevice, owner: SimulatedRepository, synced_clock: bool | None
) -> None:
    device.clock.pass_days(30_000)
    device.clock.synced = synced_clock
    device.sync()
    assert device.versions() == ["1.0.0"]


def test_expired_root_of_the_configuration_is_only_a_beginning(
    device: SyncingDevice, owner: SimulatedRepository
) -> None:
    """A device that lay in a drawer for years: its root is old, the chain of roots leads on."""
    first = Metadata[Root].from_bytes(owner.trust_anchor())
    owner.now += timedelta(days=800)
    owner.rotate("root")
    owner.rotate("root")
    owner.publish()
    device.clock.pass_days(800)
    assert first.signed.is_expired(device.clock.now())
    device.sync()
    assert device.versions() == ["1.0.0"]


def test_a_damaged_file_in_the_store_is_noticed(synced: SyncingDevice) -> None:
    (path,) = (synced.store / ".versions" / NAME).glob("*/model.onnx")
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(bytes(content))
    (found,) = verify(synced.store, [NAME])
    assert "sha256" in found.problem
    with pytest.raises(AgentError):
        verify_file(path, sha256="0" * 64)


def test_after_the_loss_of_all_root_keys_a_new_root_file_begins_anew(
    synced: SyncingDevice, server: WebServer, owner: SimulatedRepository
) -> None:
    """The old repository's metadata on the device, its roots included, is in nobody's way."""
    owner.rotate("root")
    owner.rotate("timestamp")
    owner.publish()
    synced.sync()
    successor = SimulatedRepository(owner.now)
    successor.add(make_files("1.1.0"))
    successor.publish()
    server.site = successor.site
    fails(synced, REFUSED, says="not signed by enough of its keys|must be")
    synced.root_file.write_bytes(successor.trust_anchor())
    synced.sync()
    assert synced.versions() == ["1.1.0", "1.0.0"]
