"""Tests `sudo fer-agent install` on the board itself, which does the same as over SSH."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_provisioning.board import TargetBoard

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.xdist_group("fleet-and-local"),
]

HERE = "env PIP_NO_INDEX=1 PIP_FIND_LINKS=/srv/wheels HOME=/root"


@pytest.fixture
def board(
    machine: Any,
    put_clip: Callable[[Any], None],
    put_wheels: Callable[..., None],
    debian_board: TargetBoard,
) -> Any:
    """A machine whose owner made an environment and installed `fer-agent[provision]` into it."""
    put_wheels(machine, replace(debian_board, is_here=True))
    put_clip(machine)
    machine.leave_uncompiled()
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
