"""On the board itself, `sudo fer-agent install` does what it does over SSH."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

HERE = "env PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels HOME=/root"


@pytest.fixture(scope="module")
def board(
    machine: Any,
    put_clip: Callable[[Any], None],
    agent_wheel: Path,
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """A machine whose owner made an environment and installed `fer-agent[provision]` into it."""
    wheels = tmp_path_factory.mktemp("wheels")
    download = [sys.executable, "-m", "pip", "download", "-q", "--dest", wheels,
                "--only-binary", ":all:", "--python-version", "311",
                "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_27_x86_64",
                "--platform", "manylinux2014_x86_64",
                "--constraint", root / "constraints/default.txt"]  # fmt: skip
    wanted = ["pip", f"fer-agent[provision] @ {agent_wheel.as_uri()}"]
    subprocess.run([*download, *wanted], check=True, capture_output=True)
    machine.put_folder(wheels, "/srv/wheels")
    put_clip(machine)
    machine.run(
        "python3 -m venv --without-pip /srv/own && "
        "/srv/own/bin/python $(ls /srv/wheels/pip-*.whl)/pip "
        "install -q --no-index --find-links /srv/wheels pip 'fer-agent[provision]'"
    )
    return machine


def test_board_installs_itself_and_removes_itself(board: Any, agent_wheel: Path) -> None:
    install = (
        f"{HERE} /srv/own/bin/fer-agent install --offline --context home --source /dev/video0 "
        f"--wheel /srv/wheels/{agent_wheel.name} 2>&1"
    )
    said = board.run(install)
    assert "this machine: start the service" in said or "@local: start the service" in said, said
    assert board.show("ActiveState") == "active"
    assert "nothing to change" in board.run(install)
    said = board.run("/usr/local/bin/fer-agent uninstall --purge 2>&1")
    assert "removed" in said
    assert not board.succeeds("ls /opt/fer-agent /etc/fer-agent /usr/local/bin/fer-agent")
    assert not board.succeeds("id fer-agent")
