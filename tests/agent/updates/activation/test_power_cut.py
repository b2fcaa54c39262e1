"""After a kill at any instant, the store names a whole version and the next change works."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fer_agent.models.store import find_model
from fer_agent.updates.activation import journal
from fer_agent.updates.activation.change import ModelChange
from fer_agent.updates.activation.self_test import SelfTest
from fer_agent.updates.activation.versions import Versions, verify

if TYPE_CHECKING:
    from collections.abc import Callable

    Stage = Callable[..., Path]

NAME = "tiny"
HERE = Path(__file__).parent
STEPS = ("verified", "adopted", "tried", "switched", "linked", "pruned")
ACTIVATE = """
import os, signal, sys
from pathlib import Path
from fer_agent.updates.activation.change import ModelChange
from fer_agent.updates.activation.self_test import SelfTest

def stop(step):
    if step == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)

ModelChange(Path(sys.argv[1]), SelfTest(slowdown=20.0), on_step=stop).activate_staged(
    Path(sys.argv[2]), name="tiny"
)
"""


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_right_after_a_step_leaves_a_whole_version(
    store: Path, stage: Stage, step: str
) -> None:
    ModelChange(store, SelfTest(slowdown=20.0)).activate_staged(stage("1.0.0"), name=NAME)
    staged = stage("1.1.0")
    done = subprocess.run(
        [sys.executable, "-c", ACTIVATE, store, staged, step],
        check=False, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    found = find_model(NAME, store)
    verify(found.folder, NAME)
    assert found.manifest.version == ("1.1.0" if step in ("linked", "pruned") else "1.0.0")
    # What was cut short is done again: by a sync that stages anew, or by hand.
    fresh = staged if staged.exists() else stage("1.1.0")
    ModelChange(store, SelfTest(slowdown=20.0)).activate_staged(fresh, name=NAME)
    assert find_model(NAME, store).manifest.version == "1.1.0"


@pytest.mark.slow
@pytest.mark.parametrize("kills", [60, pytest.param(200, marks=pytest.mark.exhaustive)])
def test_a_kill_at_random_instants_leaves_a_whole_version(
    tmp_path: Path, store: Path, stage: Stage, kills: int
) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0"):
        stage(version).rename(templates / version)
    seed = int.from_bytes(os.urandom(4), "big")
    done = subprocess.run(
        [sys.executable, HERE / "killed_at_random.py", store, templates, str(kills), str(seed)],
        check=False, timeout=280, capture_output=True, text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-3000:]}"
    told = json.loads(done.stdout)
    assert told["hits"] == kills, told
    assert len(told["seen"]) > 1, told
    assert len(told["left"]) <= 4, told


def test_a_full_disk_loses_nothing(store: Path, stage: Stage) -> None:
    """A limit on the size of files stands for the disk: both refuse the write half-way."""
    ModelChange(store, SelfTest(slowdown=20.0)).activate_staged(stage("1.0.0"), name=NAME)
    before = journal.read(store, NAME)
    staged = stage("1.1.0")
    code = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import fer_agent.updates.activation.self_test as self_test\n"
        "from fer_agent.updates.activation.self_test_child import SelfTestReport\n"
        "self_test.SelfTest.run = lambda self, candidate, current: SelfTestReport()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n" + ACTIVATE
    )
    done = subprocess.run(
        [sys.executable, "-c", code, store, staged, "never"],
        check=False, timeout=120, capture_output=True, text=True,
    )  # fmt: skip
    assert "TemporaryError: no room to write" in done.stderr, done.stderr
    assert journal.read(store, NAME) == before
    assert find_model(NAME, store).manifest.version == "1.0.0"
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (100, 100)
    # With room again the version that was brought in already is switched to.
    build = ModelChange(store, SelfTest(slowdown=20.0)).activate_installed(NAME, "1.1.0")
    assert Versions(store, NAME).linked() == build.key
