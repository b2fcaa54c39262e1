"""A pending change that goes between machines until enough keys have signed it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from publishing_machines import Operator, new_device

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def other(new_publisher: Operator) -> Operator:
    """A second machine with a separate key and another password."""
    machine = Operator(
        new_publisher.folder.parent / "other", new_publisher.capsys, new_publisher.monkeypatch
    )
    machine.password.write_text("another machine, another password")
    made = machine.call(
        "key", "root-bert", "--keys", machine.keys, "--password-file", machine.password
    )
    assert made.code == 0, made.err
    assert "root-bert.pub.pem is the public key" in made.out
    return machine


def sign(machine: Operator, pending: Path, *words: object) -> tuple[int, str]:
    done = machine.call(
        "sign", pending, "--keys", machine.keys, "--password-file", machine.password, *words
    )
    return done.code, done.out + done.err


def start(new_publisher: Operator, other: Operator) -> None:
    """A repository whose root needs a key of either machine."""
    pending = new_publisher.folder.parent / "start"
    new_publisher.must(
        "init", "--public-key", f"root={other.keys / 'root-bert.pub.pem'}", "--threshold", "root=2",
        "--out", pending,
    )  # fmt: skip
    code, said = sign(other, pending)
    assert code == 0, said
    assert "root: 2 of 2 must sign: root-bert (" in said
    new_publisher.must("apply", pending, keys=new_publisher.online)


def test_a_repository_starts_with_root_keys_on_two_machines(
    new_publisher: Operator,
    other: Operator,
    serve: Callable[[Path], str],
    tiny: Path,
    tmp_path: Path,
) -> None:
    start(new_publisher, other)
    new_publisher.must("add", tiny)

    device = new_device(new_publisher, serve(new_publisher.repository), tmp_path / "device")

    assert device.sync() == ["tiny 1.0.0"]
    assert not (other.folder / "repository").exists()


def test_a_change_is_published_only_once_both_have_signed(
    new_publisher: Operator, other: Operator, tmp_path: Path
) -> None:
    start(new_publisher, other)
    pending = tmp_path / "pending"
    new_publisher.must(
        "rotate", "targets", "--new", "targets-2", "--remove", "targets-1", "--out", pending
    )
    early = new_publisher.run("apply", pending, keys=new_publisher.online)
    code, said = sign(other, pending)

    assert early.code == 76
    assert "root 2 needs 2 signatures by root keys, 1 missing; not here: root-bert" in early.err
    assert code == 0
    assert "is complete; next: `fer-train publish apply" in said
    new_publisher.must("apply", pending, keys=new_publisher.online)
    assert new_publisher.versions == {"root": 2, "targets": 2, "snapshot": 2, "timestamp": 2}


def test_models_are_signed_where_no_online_key_is(
    publisher: Operator, tiny: Path, tmp_path: Path
) -> None:
    online = tmp_path / "server-keys"
    shutil.move(publisher.online, online)
    pending = tmp_path / "pending"

    refused = publisher.run("add", tiny)
    publisher.must("add", tiny, "--out", pending)
    before = publisher.versions
    applied = publisher.must("apply", pending, keys=online)

    assert refused.code == 76
    assert "use `fer-train publish apply` where the online keys are" in refused.err
    assert before["targets"] == 1
    assert "+ tiny 1.0.0" in applied.out
    assert publisher.models == ["tiny 1.0.0"]


def test_a_signer_reads_the_metadata_and_not_a_description(
    new_publisher: Operator, other: Operator, tiny: Path, tmp_path: Path
) -> None:
    start(new_publisher, other)
    bert = other.keys / "root-bert.pub.pem"
    shutil.copy(bert, tmp_path / "targets-bert.pub.pem")
    pending = tmp_path / "pending"
    new_publisher.must("rotate", "root", "--new", "root-2", "--threshold", 1, "--out", pending)

    code, said = sign(other, pending, "--dry-run")

    assert code == 0
    assert "root: 1 of 3 must sign" in said
    assert "a dry run: nothing was signed" in said
    root = json.loads((pending / "root.json").read_text())
    assert len(root["signatures"]) == 1


def test_a_stale_change_is_refused(publisher: Operator, tiny: Path, tmp_path: Path) -> None:
    pending = tmp_path / "pending"
    publisher.must("add", tiny, "--out", pending)
    publisher.must("add", tiny)
    before = publisher.files()

    done = publisher.run("apply", pending)

    assert done.code == 76
    assert "the change is for targets 1" in done.err
    assert "stands at 2" in done.err
    assert publisher.files() == before


def test_a_spoilt_file_on_the_way_is_refused(
    publisher: Operator, tiny: Path, tmp_path: Path
) -> None:
    pending = tmp_path / "pending"
    publisher.must("add", tiny, "--out", pending)
    file = pending / "content/tiny/1.0.0/model.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    before = publisher.files()

    done = publisher.run("apply", pending)

    assert done.code == 78
    assert "is not the file that was signed as tiny/1.0.0/model.onnx" in done.err
    assert publisher.files() == before


def test_a_change_without_its_files_is_refused(
    publisher: Operator, tiny: Path, tmp_path: Path
) -> None:
    pending = tmp_path / "pending"
    publisher.must("add", tiny, "--out", pending)
    shutil.rmtree(pending / "content")

    done = publisher.run("apply", pending)

    assert done.code == 76
    assert "its content is not in" in done.err


def test_metadata_changed_on_the_way_has_no_valid_signature(
    publisher: Operator, tiny: Path, tmp_path: Path
) -> None:
    pending = tmp_path / "pending"
    publisher.must("add", tiny, "--out", pending)
    tree = json.loads((pending / "targets.json").read_text())
    tree["signed"]["targets"].pop("tiny/1.0.0/golden.npz")
    (pending / "targets.json").write_text(json.dumps(tree))

    done = publisher.run("apply", pending, keys=publisher.online)

    assert done.code == 76
    assert "targets 2 needs 1 signatures by targets keys, 1 missing" in done.err


def test_signing_with_a_key_that_has_no_say_is_refused(
    publisher: Operator, other: Operator, tiny: Path, tmp_path: Path
) -> None:
    pending = tmp_path / "pending"
    publisher.must("add", tiny, "--out", pending)

    code, said = sign(other, pending)

    assert code == 76
    assert "none of the keys here is among those that still have to sign" in said


def test_a_change_goes_into_an_empty_folder_only(publisher: Operator, tiny: Path) -> None:
    done = publisher.run("add", tiny, "--out", publisher.keys)
    assert done.code == 2
    assert "is not empty" in done.err


def test_a_folder_without_a_change_is_refused(publisher: Operator, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in ("apply", "sign"):
        done = publisher.run(command, tmp_path / "empty")
        assert done.code == 76
        assert "holds no change to sign" in done.err
