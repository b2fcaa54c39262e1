"""Failures of an install: each ends with host, step and remedy, and a second run completes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import select
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fer_provisioning.board import BoardKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_provisioning.board import TargetBoard

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.xdist_group("failures-on-a-board"),
]

PI_MODEL = "Raspberry Pi 4 Model B Rev 1.5"


def installer(*arguments: object) -> subprocess.Popen[str]:
    """Start the installer, to be read line by line while it runs."""
    command = [Path(sys.executable).with_name("fer-agent"), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


class Cable:
    """A TCP way to the machine's sshd that can be cut."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._cut = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._cut.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        pairs: dict[socket.socket, socket.socket] = {}
        while not self._cut.is_set():
            for one in select.select([self._listener, *pairs], [], [], 0.05)[0]:
                if one is self._listener:
                    near, far = one.accept()[0], socket.create_connection(self._target)
                    pairs |= {near: far, far: near}
                    continue
                with contextlib.suppress(OSError):
                    if chunk := one.recv(1 << 16):
                        pairs[one].sendall(chunk)
                        continue
                for end in (pairs.pop(one), one):
                    pairs.pop(end, None)
                    end.close()
                break  # the other end may be among those that are left
        for one in pairs:
            one.close()


@pytest.fixture(scope="module")
def board(machine: Any, put_clip: Callable[[Any], None]) -> Any:
    put_clip(machine)
    return machine


@pytest.fixture
def arguments(
    board: Any, agent_wheel: Path, config_file: Path, broker: Any, password: Path
) -> list[object]:
    return [
        "--key", board.key, "--known-hosts", board.known_hosts, "--sudo-password-file", password,
        "--offline", "--wheel", agent_wheel, "--config", config_file,
        "--secret", f"mqtt-password={broker.password_file}", "--apt-wait", 1,
    ]  # fmt: skip


@pytest.fixture
def small_disk(board: Any) -> Iterator[None]:
    board.run("mkdir -p /opt && mount -t tmpfs -o size=60m tmpfs /opt")
    yield
    board.run("umount /opt")


def test_host_that_does_not_answer_is_named(provision: Any, arguments: list[object]) -> None:
    done = provision("install", "pi@127.0.0.1:9", *arguments)
    assert done.code == 69
    assert "pi@127.0.0.1:9: connect: it cannot be reached" in done.err


def test_name_that_does_not_resolve_is_named(provision: Any, arguments: list[object]) -> None:
    done = provision("install", "pi@camera.invalid", *arguments)
    assert done.code == 69
    assert "pi@camera.invalid: connect:" in done.err


def test_unknown_host_key_is_refused_where_nobody_can_be_asked(
    provision: Any, board: Any, tmp_path: Path
) -> None:
    empty = tmp_path / "known_hosts"
    empty.touch()
    host = f"pi@127.0.0.1:{board.port}"
    done = provision("status", host, "--key", board.key, "--known-hosts", empty)
    assert done.code == 77
    assert f"{host}: connect: its host key SHA256:" in done.err


def test_changed_host_key_is_refused(provision: Any, board: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    public = " ".join(other.with_suffix(".pub").read_text().split()[:2])
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{board.port} {public}\n")
    host = f"pi@127.0.0.1:{board.port}"
    done = provision("status", host, "--key", board.key, "--known-hosts", known)
    assert done.code == 77
    assert "another machine may be answering" in done.err


def test_wrong_login_key_is_refused(provision: Any, board: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    host = f"pi@127.0.0.1:{board.port}"
    done = provision("status", host, "--key", other, "--known-hosts", board.known_hosts)
    assert done.code == 77
    assert f"{host}: connect: it refused the login" in done.err


def test_wrong_sudo_password_is_refused(
    provision: Any, board: Any, arguments: list[object], password: Path
) -> None:
    password.write_text("blackberry\n")
    done = provision("install", f"pi@127.0.0.1:{board.port}", *arguments)
    password.write_text("raspberry\n")
    assert done.code == 77
    assert "become root: sudo refused the password" in done.err
    assert "blackberry" not in done.out + done.err
    assert not board.succeeds("ls -d /run/user/*/fer-agent-* /dev/shm/fer-agent-*")


def test_sudo_password_that_nobody_can_be_asked_for(provision: Any, board: Any) -> None:
    host = f"pi@127.0.0.1:{board.port}"
    done = provision("status", host, "--key", board.key, "--known-hosts", board.known_hosts)
    assert done.code == 77
    assert "--sudo-password-file" in done.err


@pytest.mark.usefixtures("small_disk")
def test_full_disk_is_told_before_anything_is_copied(
    provision: Any, board: Any, arguments: list[object]
) -> None:
    done = provision("install", f"pi@127.0.0.1:{board.port}", *arguments)
    assert done.code == 69
    assert f"pi@127.0.0.1:{board.port}: the disk is full: 60 MiB are free" in done.err
    assert board.run("ls /opt") == ""


@pytest.fixture
def small_uploads(board: Any) -> Iterator[None]:
    board.run("mount -t tmpfs -o size=10m,mode=1777 tmpfs /var/tmp")
    yield
    board.run("umount /var/tmp")


@pytest.mark.usefixtures("small_uploads")
def test_full_disk_for_uploads_is_told_before_anything_is_copied(
    provision: Any, board: Any, arguments: list[object]
) -> None:
    done = provision("install", f"pi@127.0.0.1:{board.port}", *arguments)
    assert done.code == 69
    assert "the disk is full: 10 MiB are free, copying it to /var/tmp needs" in done.err


@pytest.fixture
def own_disk(board: Any) -> Iterator[None]:
    board.run("mkdir -p /opt && mount -t tmpfs -o size=700m tmpfs /opt")
    yield
    board.run("umount /opt")


@pytest.mark.usefixtures("own_disk")
def test_disk_that_fills_on_the_way_is_told_with_the_step(
    board: Any, arguments: list[object]
) -> None:
    host = f"pi@127.0.0.1:{board.port}"
    said = []
    with installer("install", host, *arguments) as process:
        for line in process.stderr or ():
            said.append(line)
            if "install packages …" in line:
                board.run("cat /dev/zero >/opt/full", check=False)
    assert process.returncode == 69
    assert f"{host}: install packages: the disk is full" in "".join(said)


def test_new_board_is_asked_for_what_its_configuration_needs(
    terminal: Callable[..., tuple[int, str]], board: Any, agent_wheel: Path
) -> None:
    command: list[object] = [
        "install", f"root@127.0.0.1:{board.port}", "--key", board.key, "--known-hosts",
        board.known_hosts, "--offline", "--wheel", agent_wheel, "--dry-run",
    ]  # fmt: skip
    answers = {
        "Where is it used": "home",
        "Camera": "/dev/video0",
        "MQTT broker": "mqtt://127.0.0.1",
        "MQTT user": "fer",
        "MQTT password": "swordfish",
    }
    code, said = terminal(command, answers)
    assert code == 0, said
    assert "would write the configuration" in said
    assert "would write the secret mqtt-password" in said
    assert "swordfish" not in said


def test_cut_connection_is_told_and_a_second_run_completes(
    provision: Any, board: Any, arguments: list[object], broker: Any, tmp_path: Path
) -> None:
    cable = Cable(board.port)
    known = tmp_path / "known_hosts"
    known.write_text(
        board.known_hosts.read_text() + board.known_hosts.read_text().replace(
            str(board.port), str(cable.port)
        )
    )  # fmt: skip
    host = f"pi@127.0.0.1:{cable.port}"
    said = []
    with installer("install", host, *arguments, "--known-hosts", known) as process:
        for line in process.stderr or ():
            said.append(line)
            if "install packages …" in line:
                seen = board.run("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '")
                cable.cut()
    assert process.returncode == 69
    assert f"{host}: install packages: the connection was cut" in "".join(said)
    assert "raspberry" not in seen  # the sudo password shows in no process list

    board.leave_uncompiled()
    done = provision("install", f"pi@127.0.0.1:{board.port}", *arguments)
    assert done.code == 0, done.err
    assert board.show("ActiveState") == "active"
    broker.wait_for("/status", '"online"')
    assert "raspberry" not in done.out + done.err + board.journal()


def test_failed_board_of_a_fleet_keeps_no_other_back(
    provision: Any, board: Any, agent_wheel: Path, password: Path, tmp_path: Path
) -> None:
    inventory = tmp_path / "boards.toml"
    inventory.write_text(
        f"""\
[defaults]
user = "pi"
key = "{board.key}"
[groups.hall.settings]
health.interval_s = 30.0
[hosts.camera-1]
address = "127.0.0.1:{board.port}"
groups = ["hall"]
[hosts.camera-2]
address = "127.0.0.1:9"
"""
    )
    common = ["--inventory", inventory, "--known-hosts", board.known_hosts,
              "--sudo-password-file", password]  # fmt: skip
    done = provision("install", *common, "--offline", "--wheel", agent_wheel, "--json")
    hosts = {one["host"]: one for one in json.loads(done.out)["hosts"]}
    assert done.code == 69
    assert hosts["camera-1"]["state"] == "installed"
    assert "write the configuration" in hosts["camera-1"]["changes"]
    assert hosts["camera-2"]["state"] == "failed"
    assert "interval_s = 30.0" in board.run("cat /etc/fer-agent/config.toml")

    only = provision("install", *common, "--offline", "--wheel", agent_wheel, "--only", "hall")
    assert (only.code, "camera-1: nothing to change" in only.err) == (0, True)
    table = provision("status", *common)
    assert table.code == 69
    assert [line.split()[:2] for line in table.out.splitlines()[1:]] == [
        ["camera-1", "active"],
        ["camera-2", "unreachable"],
    ]


@pytest.fixture
def raspberry(
    board: Any,
    put_wheels: Callable[..., None],
    debian_board: TargetBoard,
    require_program: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Make the machine look like a Pi whose package sources have python3-picamera2 and wheels."""
    put_wheels(board, replace(debian_board, kind=BoardKind.PI, constraints="bookworm-pi"))
    board.leave_uncompiled()
    board.run(r"printf '[global]\nno-index = true\nfind-links = /srv/wheels\n' >>/etc/pip.conf")
    package = tmp_path / "picamera2"
    (package / "DEBIAN").mkdir(parents=True)
    module = package / "usr/lib/python3/dist-packages/picamera2"
    module.mkdir(parents=True)
    (module / "__init__.py").touch()
    control = (
        "Package: python3-picamera2\nVersion: 0.3.31-1\nArchitecture: all\n"
        "Maintainer: tests <tests@localhost>\nDescription: stands in for the camera library\n"
    )
    (package / "DEBIAN/control").write_text(control)
    deb = tmp_path / "picamera2.deb"
    build = [require_program("dpkg-deb"), "-b", package, deb]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    content = deb.read_bytes()
    board.run("mkdir -p /srv/apt")
    board.run("cat >/srv/apt/picamera2.deb", stdin=content)
    listing = (
        f"{control}Filename: ./picamera2.deb\nSize: {len(content)}\n"
        f"SHA256: {hashlib.sha256(content).hexdigest()}\n"
    )
    board.run(
        f"cat >/srv/apt/Packages <<'END'\n{listing}\nEND\n"
        "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*\n"
        "echo 'deb [trusted=yes] file:/srv/apt ./' >/etc/apt/sources.list\n"
        "mount -t tmpfs tmpfs /sys/firmware && mkdir -p /sys/firmware/devicetree/base\n"
        f"printf '%s\\0' '{PI_MODEL}' >/sys/firmware/devicetree/base/model"
    )


LOCK = """
import fcntl, time
with open("/var/lib/dpkg/lock-frontend", "w") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    time.sleep(1000)
"""


@pytest.mark.usefixtures("raspberry")
def test_pi_whose_apt_is_locked_is_told_and_a_second_run_completes(
    provision: Any, board: Any, arguments: list[object]
) -> None:
    host = f"pi@127.0.0.1:{board.port}"
    online = [one for one in arguments if one != "--offline"]
    lock = f"systemd-run -q --unit=apt-lock /usr/bin/python3 -c '{LOCK}'"
    board.run(lock)
    done = provision("install", host, *online)
    assert done.code == 75
    assert (
        f"{host}: install python3-picamera2: another package manager holds apt's lock" in done.err
    )
    board.run("systemctl stop apt-lock")

    refused = provision("install", host, *arguments)
    assert refused.code == 69
    assert "--offline installs no system packages" in refused.err

    done = provision("install", host, *online)
    assert done.code == 0, done.err
    assert f"{host}: install python3-picamera2: done" in done.err
    assert PI_MODEL in done.out
    assert "/10-pi.conf " in board.show("DropInPaths")
    assert board.run(
        "/opt/fer-agent/venv/bin/python -c 'import picamera2, numpy; print(numpy.__version__)'"
    ).startswith("1.26")
    assert board.show("ActiveState") == "active"


def test_new_host_key_is_shown_and_asked_for(
    terminal: Callable[..., tuple[int, str]], board: Any, tmp_path: Path, password: Path
) -> None:
    known = tmp_path / "known_hosts"
    command: list[object] = [
        "status", f"pi@127.0.0.1:{board.port}", "--key", board.key, "--known-hosts", known,
        "--sudo-password-file", password,
    ]  # fmt: skip
    key = board.key.with_suffix(".pub").read_text().split()[1]
    other = f"other.example ssh-ed25519 {key}"
    known.write_text(other)  # a file that an editor left without its last end of line
    code, said = terminal(command, {"Is that the board's?": "n"})
    assert (code, known.read_text()) == (77, other)
    fingerprint = board.run("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
    assert fingerprint in said
    _, said = terminal(command, {"Is that the board's?": "y"})
    assert "SERVICE" in said, said
    assert [line.split()[0] for line in known.read_text().splitlines()] == [
        "other.example",
        f"[127.0.0.1]:{board.port}",
    ]


def test_login_password_is_asked_for_where_no_key_fits(
    terminal: Callable[..., tuple[int, str]], board: Any, tmp_path: Path, password: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    command: list[object] = [
        "status", f"pi@127.0.0.1:{board.port}", "--key", other, "--known-hosts",
        board.known_hosts, "--sudo-password-file", password,
    ]  # fmt: skip
    _, said = terminal(command, {"takes no key of yours": "raspberry"})
    assert "SERVICE" in said
    assert "unreachable" not in said
    assert "raspberry" not in said
