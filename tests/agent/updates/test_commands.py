"""`fer-agent models list|verify|sync|activate|rollback` on a real store and a real web server."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from simulated_repository import SimulatedRepository
from syncing_device import make_files

from fer_agent.cli import main
from fer_agent.inference.setting import PLAIN
from fer_agent.measure import record
from fer_agent.measure.fingerprint import of_this_board
from fer_agent.measure.record import MeasuredChoice
from fer_agent.models.store import find_model, shipped_folder
from fer_agent.system import durable
from fer_agent.updates import report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from web_server import WebServer

SHIPPED = "microexpnet-fer2013"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def owner(server: WebServer) -> SimulatedRepository:
    """Whoever publishes: `tiny`, and the shipped model in a version that is newer."""
    owner = SimulatedRepository(datetime.now(timezone.utc).replace(microsecond=0))
    owner.add(make_files("1.0.0"))
    owner.add(next_version("99.0.0"))
    owner.publish()
    server.site = owner.site
    return owner


def next_version(version: str, **changes: Any) -> dict[str, bytes]:
    """The shipped model's files under another version."""
    folder = shipped_folder() / SHIPPED
    manifest = json.loads((folder / "manifest.json").read_text()) | {"version": version} | changes
    names = [entry["path"] for entry in (*manifest["files"], manifest["golden"])]
    files = {name: (folder / name).read_bytes() for name in names}
    return {"manifest.json": json.dumps(manifest).encode(), **files}


@pytest.fixture
def call(
    tmp_path: Path,
    store: Path,
    server: WebServer,
    owner: SimulatedRepository,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """A function that runs `fer-agent models` and returns exit status, stdout and stderr."""
    (tmp_path / "root.json").write_bytes(owner.trust_anchor())
    config = tmp_path / "config.toml"
    config.write_text(
        f'[classifier]\nmodel = "{SHIPPED}"\n[detector]\nbackend = "haar"\n[models]\n'
        f'path = "{store}"\nrepository = "{server.url}"\nroot_file = "{tmp_path}/root.json"\n'
        "slowdown_limit = 20.0\n"
    )

    def run(command: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys, "argv", ["fer-agent", "models", command, *words, "--config", str(config)]
        )
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_models_way_through_the_commands(
    call: Callable[..., tuple[int, str, str]], store: Path, owner: SimulatedRepository
) -> None:
    shipped = find_model(SHIPPED).manifest.version
    code, out, _ = call("sync", "--dry-run")
    assert (code, out) == (0, f"{SHIPPED}: 99.0.0 is there, {shipped} runs here\n")
    code, out, _ = call("sync")
    assert (code, out) == (0, f"{SHIPPED}: 99.0.0 is active now\n")
    assert call("sync")[1] == f"{SHIPPED}: 99.0.0 is the newest\n"
    (row,) = (
        each for each in json.loads(call("list", "--json")[1])["models"] if each["name"] == SHIPPED
    )
    assert (row["current"], row["shipped"], row["available"], row["refused"]) == (
        "99.0.0", shipped, "99.0.0", [],
    )  # fmt: skip
    code, out, _ = call("verify", SHIPPED)
    assert (code, out) == (0, f"{SHIPPED} 99.0.0: whole\n{SHIPPED} {shipped}: whole\n")

    code, out, _ = call("rollback", SHIPPED)
    assert (code, "the version shipped with the agent is active" in out) == (0, True)
    code, out, _ = call("sync")
    assert (code, out) == (0, f"{SHIPPED}: {shipped} stays; rolled back by hand\n")
    code, out, err = call("activate", SHIPPED, "99.0.0")
    assert code == 0, err
    assert call("sync")[1] == f"{SHIPPED}: 99.0.0 is the newest\n"


def test_a_damaged_file_is_a_finding(
    call: Callable[..., tuple[int, str, str]], store: Path
) -> None:
    assert call("sync", "tiny", "--no-activate")[0] == 0
    (file,) = (store / ".versions" / "tiny").glob("*/model.onnx")
    file.write_bytes(b"damaged")
    code, out, _ = call("verify", "tiny")
    assert code == 1
    assert "tiny 1.0.0: " in out
    assert "fetch it again" in out
    code, out, _ = call("verify", "tiny", "--json")
    assert code == 1
    assert [each["whole"] for each in json.loads(out)["checked"]] == [False]


def test_a_model_that_fails_its_self_test_is_refused_with_a_reason_and_exit_76(
    call: Callable[..., tuple[int, str, str]], store: Path
) -> None:
    code, out, err = call("sync", "tiny")
    assert code == 76
    assert "tiny: nothing stays; " in out
    assert err.splitlines()[-1].startswith("  ")
    assert json.loads(call("list", "--json")[1])["models"][-1]["refused"] == ["1.0.0"]
    last = report.read(store)
    assert last is not None
    assert last.alert


def test_golden_inputs_that_do_not_agree_refuse_a_version(
    call: Callable[..., tuple[int, str, str]], store: Path, owner: SimulatedRepository
) -> None:
    # The golden answers of FP32 in the place of a model that computes something else.
    files = next_version("100.0.0")
    manifest = json.loads(files["manifest.json"])
    other = files["model.int8.onnx"]
    for entry in manifest["files"]:
        if entry["precision"] == "fp32":
            files[entry["path"]] = other
            entry |= {"sha256": hashlib.sha256(other).hexdigest(), "bytes": len(other)}
    files["manifest.json"] = json.dumps(manifest).encode()
    owner.add(files)
    owner.publish()
    code, out, _ = call("sync")
    assert code == 76
    assert "golden" in out
    assert not (store / SHIPPED).exists()


def test_the_timer_syncs_only_when_it_is_due(
    call: Callable[..., tuple[int, str, str]], store: Path, server: WebServer, tmp_path: Path
) -> None:
    assert call("sync", "--scheduled")[1] == f"{SHIPPED}: 99.0.0 is active now\n"
    asked = len(server.requests)
    assert call("sync", "--scheduled")[:2] == (0, "")
    assert len(server.requests) == asked
    last = report.read(store)
    assert last is not None
    for age, due in ((timedelta(hours=5.9), False), (timedelta(hours=6.1), True),
                     (-timedelta(days=1), True)):  # fmt: skip
        at = datetime.now(timezone.utc) - age
        report.write(store, last.model_copy(update={"at": at}))
        asked = len(server.requests)
        assert call("sync", "--scheduled")[0] == 0
        assert (len(server.requests) > asked) is due, age
    # After a failure it does not wait.
    report.write(store, last.model_copy(update={"ok": False}))
    asked = len(server.requests)
    call("sync", "--scheduled")
    assert len(server.requests) > asked


def test_without_a_repository_the_timer_is_quiet_and_a_person_is_told(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    kept = [line for line in config.read_text().splitlines() if "repository" not in line]
    config.write_text("\n".join(kept))
    assert call("sync", "--scheduled")[:2] == (0, "")
    code, _, err = call("sync")
    assert code == 78
    assert "`models.repository` is not set" in err


def test_the_timer_measures_again_what_was_measured_and_has_changed(
    call: Callable[..., tuple[int, str, str]],
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})
    config = tmp_path / "config.toml"
    kept = [line for line in config.read_text().splitlines() if "repository" not in line]
    config.write_text("\n".join(kept))
    assert call("sync", "--scheduled")[0] == 0
    assert record.latest(store, SHIPPED) is None
    here = of_this_board(find_model(SHIPPED).manifest)
    known = MeasuredChoice(
        model=SHIPPED,
        version="1.0.0",
        created="2026-01-01T00:00:00+00:00",
        fingerprint=here.model_copy(update={"board": "another"}),
        setting=PLAIN,
        measured=(),
    )
    record.write(store, known)
    assert call("sync", "--scheduled")[0] == 0
    choice = record.latest(store, SHIPPED)
    assert choice is not None
    assert choice.fingerprint == here
    assert choice.measured
    # One that cannot be measured keeps nobody from the rest.
    record.write(store, known)
    with durable.locked(record.lock_of(store, SHIPPED), wait=False):
        code, _, err = call("sync", "--scheduled")
    assert code == 0
    assert err.count("could not be measured again") == 1


def test_a_root_file_that_is_none_is_a_configuration_fault(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "config.toml", tmp_path / "root.json")
    code, _, err = call("sync")
    assert code == 78
    assert "is no root metadata" in err
    (tmp_path / "root.json").unlink()
    code, _, err = call("sync")
    assert code == 78
    assert "cannot read the root metadata" in err
