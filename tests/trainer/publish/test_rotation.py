"""Rotation of keys, which devices follow, and later signatures of old keys, which they refuse."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from publishing_machines import PASSWORD
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata

from fer_trainer.publish import keys
from fer_trainer.publish.passwords import PasswordSource

if TYPE_CHECKING:
    from pathlib import Path

    from publishing_machines import Device, Operator


def forge(publisher: Operator, role: str, path: str, label: str) -> None:
    """Sign a role's metadata again with one key, as a thief of that key could."""
    place = publisher.repository / path
    metadata = Metadata.from_bytes(place.read_bytes())
    metadata.signed.version += 1
    (file,) = [one for one in keys.find([publisher.keys]).values() if one.label == label]
    password = publisher.folder / "taken"
    password.write_text(PASSWORD)
    metadata.sign(keys.open_signer(file, PasswordSource([password], None)))
    name = place.name if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
    (place.parent / name).write_bytes(metadata.to_bytes())


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_devices_follow_a_replaced_key(
    publisher: Operator, device: Device, tiny: Path, tiny_next: Path, role: str
) -> None:
    publisher.must("add", tiny)
    assert device.sync() == ["tiny 1.0.0"]

    publisher.must("rotate", role, "--new", f"{role}-2", "--remove", f"{role}-1")
    assert device.sync() == ["tiny 1.0.0"]
    for path in publisher.keys.rglob(f"{role}-1.*"):
        path.unlink()
    publisher.must("add", tiny_next)

    assert device.sync() == ["tiny 1.1.0", "tiny 1.0.0"]
    (key,) = publisher.status()["roles"][role]["keys"]
    assert key.startswith(f"{role}-2 (")


def test_a_stolen_timestamp_key_is_worth_nothing_after_its_rotation(
    publisher: Operator, device: Device, tiny: Path
) -> None:
    publisher.must("add", tiny)
    publisher.must("rotate", "timestamp", "--new", "timestamp-2", "--remove", "timestamp-1")
    assert device.sync() == ["tiny 1.0.0"]

    forge(publisher, "timestamp", "metadata/timestamp.json", "timestamp-1")

    with pytest.raises(RepositoryError):
        device.sync()


def test_a_new_root_needs_the_old_and_the_new_threshold(new_publisher: Operator) -> None:
    new_publisher.must("init", "--root-keys", 2, "--threshold", "root=2")
    drawer = new_publisher.folder / "drawer"
    drawer.mkdir()
    for path in new_publisher.keys.glob("root-2.*"):
        shutil.move(path, drawer)

    refused = new_publisher.run("rotate", "root", "--new", "root-3", "--remove", "root-2")
    allowed = new_publisher.run(
        "rotate", "root", "--new", "root-3", "--remove", "root-2", "--keys", drawer
    )

    assert refused.code == 76
    assert "needs 2 signatures by the root keys so far, 1 missing; not here: root-2" in refused.err
    assert allowed.code == 0
    assert new_publisher.versions["root"] == 2


def test_a_lost_key_among_several_is_removed_without_it(
    new_publisher: Operator, serve: object, tiny: Path
) -> None:
    new_publisher.must("init", "--root-keys", 2, "--targets-keys", 2)
    for label in ("root-1", "targets-2"):
        for path in new_publisher.keys.glob(f"{label}.*"):
            path.unlink()

    new_publisher.must("rotate", "root", "--remove", "root-1", "--new", "root-3")
    new_publisher.must("rotate", "targets", "--remove", "targets-2")
    new_publisher.must("add", tiny)

    assert new_publisher.models == ["tiny 1.0.0"]


def test_a_raised_threshold_holds_from_then_on(
    publisher: Operator, device: Device, tiny: Path
) -> None:
    publisher.must("rotate", "targets", "--new", "targets-2", "--threshold", 2)
    publisher.must("add", tiny)
    assert device.sync() == ["tiny 1.0.0"]
    publisher.must("retire", "tiny", "1.0.0")

    for path in publisher.keys.glob("targets-2.*"):
        path.unlink()
    done = publisher.run("add", tiny)

    assert done.code == 76
    assert "targets 5 needs 2 signatures by targets keys, 1 missing" in done.err


def test_the_summary_names_new_and_removed_keys_and_the_old_threshold(
    publisher: Operator,
) -> None:
    publisher.must("rotate", "root", "--new", "root-2", "--new", "root-3")

    said = publisher.must("rotate", "root", "--remove", "root-1", "--threshold", 2).out

    assert "root: 2 of 2 must sign: root-2 (" in said
    assert "; 1 so far; no longer root-1 (" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("targets",), "nothing is to be changed"),
        (("nobody", "--threshold", 1), "there is no role 'nobody'"),
        (("targets", "--remove", "root-1"), "no key of targets is called 'root-1'"),
        (("targets", "--remove", "targets-1"), "targets would have 0 keys"),
        (("targets", "--threshold", 2), "targets would have 1 keys, of which 2 must sign"),
        (("targets", "--new", "../evil"), "'../evil' cannot name a key"),
    ],
)
def test_rotations_that_cannot_be_meant_are_refused(
    publisher: Operator, words: tuple[object, ...], sentence: str
) -> None:
    before = publisher.files()

    done = publisher.run("rotate", *words)

    assert done.code == 2
    assert sentence in done.err
    assert publisher.files() == before


def test_one_key_cannot_sign_for_root_and_another_role(publisher: Operator) -> None:
    done = publisher.run("rotate", "targets", "--add", publisher.keys / "root-1.pub.pem")
    assert done.code == 2
    assert "would sign for targets and root" in done.err
