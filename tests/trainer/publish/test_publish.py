"""Publication of model folders, and a device that reads them over HTTP with python-tuf's client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from publishing_machines import new_device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from publishing_machines import Device, Operator


def test_a_device_verifies_and_fetches_what_was_published(
    publisher: Operator, device: Device, tiny: Path, detector: Path
) -> None:
    publisher.must("add", tiny, detector)

    assert device.sync() == ["tiny 1.0.0", "yunet 2023.3.0"]
    for folder in (tiny, detector):
        version = json.loads((folder / "manifest.json").read_text())["version"]
        for file in folder.iterdir():
            path = f"{folder.name}/{version}/{file.name}"
            assert device.fetch(path) == file.read_bytes()


def test_a_device_follows_additions_and_retirements(
    publisher: Operator, device: Device, tiny: Path, tiny_next: Path
) -> None:
    assert device.sync() == []
    publisher.must("add", tiny)
    assert device.sync() == ["tiny 1.0.0"]
    publisher.must("add", tiny_next)
    assert device.sync() == ["tiny 1.1.0", "tiny 1.0.0"]
    publisher.must("retire", "tiny", "1.0.0")
    assert device.sync() == ["tiny 1.1.0"]


def test_versions_rise_by_one_and_old_metadata_stays(publisher: Operator, tiny: Path) -> None:
    publisher.must("add", tiny)
    publisher.must("retire", "tiny", "1.0.0")

    assert publisher.versions == {"root": 1, "targets": 3, "snapshot": 3, "timestamp": 3}
    names = {path.name for path in (publisher.repository / "metadata").iterdir()}
    assert names == {
        "1.root.json", "1.targets.json", "2.targets.json", "3.targets.json",
        "1.snapshot.json", "2.snapshot.json", "3.snapshot.json", "timestamp.json",
    }  # fmt: skip


def test_every_web_server_may_read_what_is_served_and_only_the_owner_the_keys(
    new_publisher: Operator, tiny: Path
) -> None:
    import os

    before = os.umask(0o077)
    try:
        new_publisher.must("init")
        new_publisher.must("add", tiny)
    finally:
        os.umask(before)

    for path in new_publisher.repository.rglob("*"):
        if ".publish" not in path.parts:
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    private = [path for path in new_publisher.keys.rglob("*.pem") if ".pub." not in path.name]
    assert len(private) == 4
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_offline_keys_are_encrypted_and_online_keys_are_not(publisher: Operator) -> None:
    first_line = {
        path.name: path.read_text().splitlines()[0]
        for path in publisher.keys.rglob("*.pem")
        if ".pub." not in path.name
    }
    assert first_line == {
        "root-1.pem": "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "targets-1.pem": "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "snapshot-1.pem": "-----BEGIN PRIVATE KEY-----",
        "timestamp-1.pem": "-----BEGIN PRIVATE KEY-----",
    }


def test_the_summary_says_what_is_signed_by_whom(publisher: Operator, tiny: Path) -> None:
    said = publisher.must("add", tiny).out

    size_bytes = (tiny / "model.onnx").stat().st_size
    sha256 = json.loads((tiny / "manifest.json").read_text())["files"][0]["sha256"]
    assert "to add tiny 1.0.0, this is signed:" in said
    assert "+ tiny 1.0.0" in said
    assert f"model.onnx {size_bytes:,} bytes, sha256 {sha256}" in said
    assert "signatures by targets-1 (" in said
    assert "timestamp 2 (says that all this is fresh), signatures by timestamp-1 (" in said
    assert "which keys are trusted" not in said


def test_a_dry_run_says_the_same_and_writes_nothing(publisher: Operator, tiny: Path) -> None:
    before = publisher.files()
    publisher.password.unlink()  # no key is opened

    said = publisher.call(
        "add", tiny, "--repository", publisher.repository, "--keys", publisher.keys, "--dry-run"
    )

    assert said.code == 0
    assert "+ tiny 1.0.0" in said.out
    assert publisher.files() == before


def test_a_dry_run_of_init_makes_neither_keys_nor_a_folder(new_publisher: Operator) -> None:
    said = new_publisher.must("init", "--root-keys", 2, "--threshold", "root=2", "--dry-run").out

    assert "root: 2 of 2 must sign: root-1 (" in said
    assert [path.name for path in new_publisher.folder.iterdir()] == ["password"]


def test_publishing_the_same_again_changes_nothing(publisher: Operator, tiny: Path) -> None:
    publisher.must("add", tiny)
    before = publisher.files()

    said = publisher.must("add", tiny)

    assert said.out == "all of this is published already; nothing to do\n"
    assert publisher.files() == before


def test_the_minimum_agent_version_reaches_every_file(publisher: Operator, tiny: Path) -> None:
    publisher.must("add", tiny, "--minimum-agent-version", "0.4.0")

    targets = json.loads((publisher.repository / "metadata/2.targets.json").read_text())
    found = targets["signed"]["targets"].values()
    assert [one["custom"]["minimum_agent_version"] for one in found] == ["0.4.0"] * 3
    assert {one["custom"].get("precision") for one in found} == {"fp32", None}


def test_delete_removes_the_files_of_retired_versions_only(
    publisher: Operator, device: Device, tiny: Path, tiny_next: Path
) -> None:
    publisher.must("add", tiny, tiny_next)
    publisher.must("retire", "tiny", "1.0.0", "--delete")

    folders = [path.name for path in (publisher.repository / "targets/tiny").iterdir()]
    assert folders == ["1.1.0"]
    assert device.sync() == ["tiny 1.1.0"]
    assert device.fetch("tiny/1.1.0/model.onnx") == (tiny_next / "model.onnx").read_bytes()


def test_expiry_settings_travel_with_the_repository(new_publisher: Operator) -> None:
    new_publisher.must("init", "--expires", "timestamp=2", "--expires", "root=90")
    first = new_publisher.status()["roles"]
    new_publisher.must("refresh", keys=new_publisher.online)
    new_publisher.must("rotate", "root", "--expires", "timestamp=3")

    assert {role: one["days"] for role, one in first.items()} == {
        "root": 90, "targets": 180, "snapshot": 30, "timestamp": 2,
    }  # fmt: skip
    assert new_publisher.status()["roles"]["timestamp"]["days"] == 3
    assert new_publisher.status()["roles"]["root"]["days"] == 90


def test_the_shipped_model_can_be_published(
    publisher: Operator, device: Device, root: Path
) -> None:
    folder = root / "models" / "microexpnet-fer2013"
    publisher.must("add", folder)

    (version,) = device.sync()
    path = f"{version.replace(' ', '/')}/model.int8.onnx"
    assert device.fetch(path) == (folder / "model.int8.onnx").read_bytes()


def test_status_says_what_is_there_and_until_when(publisher: Operator, tiny: Path) -> None:
    publisher.must("add", tiny)

    said = publisher.call("status", "--repository", publisher.repository)

    assert said.code == 0
    assert "tiny 1.0.0: emotion-model, 3 files" in said.out
    assert "1 of 1 must sign: timestamp-1 (" in said.out


def test_a_new_device_may_start_from_any_root(
    publisher: Operator, serve: Callable[[Path], str], tiny: Path, tmp_path: Path
) -> None:
    publisher.must("add", tiny)
    publisher.must("rotate", "root", "--new", "root-2", "--remove", "root-1")
    address = serve(publisher.repository)

    for version in (1, 2):
        newcomer = new_device(publisher, address, tmp_path / f"newcomer-{version}", version)
        assert newcomer.sync() == ["tiny 1.0.0"]
