"""Tests with two machines at once: one password, one bundle, one live table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.xdist_group("fleet-and-local"),
]


@pytest.fixture(scope="module")
def inventory(
    machine: Any,
    other_machine: Any,
    put_clip: Callable[[Any], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An inventory of both, with their host keys beside it."""
    for one in (machine, other_machine):
        put_clip(one)
        one.leave_uncompiled()
    path = tmp_path_factory.mktemp("fleet") / "boards.toml"
    path.write_text(
        f"""\
[defaults]
user = "pi"
key = "{machine.key}"
[defaults.settings]
deployment.context = "research"
camera.main.source = "/srv/portrait.webp"
camera.main.loop = true
camera.main.fps = 2.0
detector.backend = "haar"
[hosts.camera-1]
address = "127.0.0.1:{machine.port}"
[hosts.camera-2]
address = "127.0.0.1:{other_machine.port}"
"""
    )
    known = machine.known_hosts.read_text() + other_machine.known_hosts.read_text()
    path.with_suffix(".known_hosts").write_text(known)
    return path


@pytest.fixture(scope="module")
def common(inventory: Path) -> list[object]:
    return ["--inventory", inventory, "--known-hosts", inventory.with_suffix(".known_hosts")]


def test_two_boards_of_a_kind_are_installed_at_once(
    terminal: Callable[..., tuple[int, str]],
    common: list[object],
    agent_wheel: Path,
    machine: Any,
    other_machine: Any,
) -> None:
    command = ["install", *common, "--offline", "--wheel", agent_wheel]
    code, said = terminal(command, {"sudo password": "raspberry", "Go on?": "y"})
    assert code == 0, said
    assert said.count("sudo password") == 1
    assert "raspberry" not in said
    assert [one.show("ActiveState") for one in (machine, other_machine)] == ["active", "active"]


def test_logs_name_the_board_of_each_line(
    provision: Callable[..., Any],
    terminal: Callable[..., tuple[int, str]],
    common: list[object],
    password: Path,
    machine: Any,
    other_machine: Any,
) -> None:
    names = {"camera-1": machine.name, "camera-2": other_machine.name}
    options = ["--sudo-password-file", password, "--lines", 5]
    lines = provision("logs", *common, *options).out.splitlines()
    assert len(lines) == 10
    for line in lines:
        board, rest = line.split(": ", maxsplit=1)
        assert rest.split()[1] == names[board]

    code, _ = terminal(["logs", "-f", *common, *options], {}, stop_at=other_machine.name)
    assert code == 0  # Ctrl-C is how one stops following


def test_live_table_follows_what_happens(
    terminal: Callable[..., tuple[int, str]],
    common: list[object],
    password: Path,
    machine: Any,
    other_machine: Any,
) -> None:
    def happen() -> None:
        machine.run("pkill -f '^sshd: pi'")  # its connection is cut, and made again
        other_machine.run("systemctl stop fer-agent")

    code, said = terminal(
        ["status", *common, "--sudo-password-file", password],
        {},
        when=("camera-2", happen),
        stop_at="inactive",
    )
    assert code == 1, said
    last = said.rpartition("HOST")[2]
    assert [line.split()[:2] for line in last.splitlines()[1:3]] == [
        ["camera-1", "active"],
        ["camera-2", "inactive"],
    ]


def test_table_for_a_program_is_drawn_once(
    provision: Callable[..., Any], common: list[object], password: Path
) -> None:
    done = provision("status", *common, "--sudo-password-file", password)
    assert (done.code, done.out.count("HOST")) == (1, 1)
