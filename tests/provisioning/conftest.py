"""A real board to install on: a Debian root, booted with its own systemd, reached by a real sshd.

The root is made once by debootstrap and kept in the user's cache; each machine boots a throw-away
copy of it in memory within a second or two.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = (
    "systemd,systemd-sysv,dbus,python3,iproute2,procps,udev,openssh-server,sudo,ca-certificates"
)
PREPARE = """
set -eu
systemctl -q mask ssh.service ssh.socket
useradd -m -s /bin/bash -G sudo pi
echo pi:raspberry | chpasswd
rm -f /etc/machine-id
touch /etc/machine-id
"""
BOOT_TIMEOUT_S = 60.0
CLIP = "/srv/portrait.webp"


@dataclass
class Machine:
    """A booted Debian with an sshd of its own on a loopback port."""

    name: str
    leader: int
    port: int
    key: Path
    known_hosts: Path

    def run(self, command: str, *, check: bool = True) -> str:
        """Run a shell command inside as root; returns its stdout."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-a", "sh", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if check and done.returncode != 0:
            pytest.fail(f"{command!r} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def succeeds(self, command: str) -> bool:
        """Tell whether a shell command inside ends with 0."""
        marker = self.run(f"({command}) >/dev/null 2>&1 && echo yes || echo no")
        return marker == "yes"

    def show(self, key: str) -> str:
        """Return one of systemd's properties of the service."""
        return self.run(f"systemctl show fer-agent.service -p {key} --value")

    def wait_for(self, command: str, expected: str, timeout_s: float = 30.0) -> None:
        """Wait until a command prints what is expected."""
        deadline_s = time.monotonic() + timeout_s
        while (found := self.run(command, check=False)) != expected:
            if time.monotonic() > deadline_s:
                pytest.fail(f"{command!r} printed {found!r}, not {expected!r}: {self.journal()}")
            time.sleep(0.2)

    def journal(self) -> str:
        """Return the end of the service's log."""
        return self.run("journalctl -u fer-agent -n 40 --no-pager -o cat", check=False)

    @property
    def ssh_options(self) -> list[str]:
        """Options that let the installer in."""
        return [
            "--port",
            str(self.port),
            "--key",
            str(self.key),
            "--known-hosts",
            str(self.known_hosts),
        ]


def free_port() -> int:
    """Find a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def debian(require_program: Callable[[str], Path]) -> Path:
    """The root of a Debian with systemd and sshd; made once, about 90 seconds."""
    if os.geteuid() != 0:
        pytest.skip("booting a Debian needs root")
    debootstrap = require_program("debootstrap")
    require_program("systemd-nspawn")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-agent-tests"
    recipe = hashlib.sha256((PACKAGES + PREPARE).encode()).hexdigest()[:8]
    root = cache / f"bookworm-{recipe}"
    if not root.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        work = cache / f"making-{os.getpid()}"
        include = f"--include={PACKAGES}"
        subprocess.run(
            [debootstrap, "--variant=minbase", include, "bookworm", work],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        subprocess.run(["chroot", work, "sh", "-c", PREPARE], check=True)
        work.rename(root)
    return root


@pytest.fixture(scope="session")
def ssh_key(
    tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], Path]
) -> Path:
    """A private key that all machines accept."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    keygen = require_program("ssh-keygen")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    return key


@contextlib.contextmanager
def boot(root: Path, key: Path, folder: Path, name: str) -> Iterator[Machine]:
    """Boot a copy of the root and start its sshd; it ends with the context."""
    log = (folder / f"{name}.log").open("wb")
    nspawn = subprocess.Popen(
        ["systemd-nspawn", "-q", "-D", root, "--volatile=overlay", "--boot", "--register=no",
         "--keep-unit", "-M", name],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        leader = _wait_until_running(nspawn)
        machine = Machine(name, leader, free_port(), key, folder / f"{name}.known_hosts")
        _start_sshd(machine)
        yield machine
    finally:
        with contextlib.suppress(ProcessLookupError, UnboundLocalError):
            os.kill(leader, signal.SIGRTMIN + 4)
        with contextlib.suppress(subprocess.TimeoutExpired):
            nspawn.wait(20)
        nspawn.kill()
        nspawn.wait()
        log.close()


def _wait_until_running(nspawn: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    deadline_s = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline_s and nspawn.poll() is None:
        found = children.read_text().split()
        if found:
            ask = ["nsenter", "-t", found[0], "-a", "systemctl", "is-system-running"]
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            if done.stdout.strip() in ("running", "degraded"):
                return int(found[0])
        time.sleep(0.1)
    pytest.fail("the Debian root did not boot")


def _start_sshd(machine: Machine) -> None:
    public = machine.key.with_suffix(".pub").read_text().strip()
    for home, user in (("/root", "root"), ("/home/pi", "pi")):
        machine.run(
            f"mkdir -p -m 700 {home}/.ssh && cd {home}/.ssh && "
            f"echo {shlex.quote(public)} >authorized_keys && chown -R {user}: ."
        )
    machine.run(
        "mkdir -p /run/sshd && systemd-run -q --unit=test-sshd /usr/sbin/sshd -D "
        f"-p {machine.port} -o ListenAddress=127.0.0.1"
    )
    host_key = machine.run("cat /etc/ssh/ssh_host_ed25519_key.pub").rsplit(" ", 1)[0]
    machine.known_hosts.write_text(f"[127.0.0.1]:{machine.port} {host_key}\n")
    deadline_s = time.monotonic() + BOOT_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", machine.port)):
            return
        time.sleep(0.05)
    pytest.fail("sshd did not start")


@pytest.fixture(scope="module")
def machine(
    debian: Path, ssh_key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """One booted machine for all tests of a module, in their order."""
    folder = tmp_path_factory.mktemp("machine")
    with boot(debian, ssh_key, folder, f"fer-{os.getpid()}-{free_port()}") as booted:
        yield booted


@dataclass(frozen=True)
class Done:
    """How a command of the installer ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def provision() -> Callable[..., Done]:
    """A function that runs `fer-agent` with the given arguments, without a terminal."""

    def run(*arguments: object, timeout_s: float = 280.0, stdin: str = "") -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "fer_provisioning", *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=timeout_s, input=stdin,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def agent_wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, root]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("fer_agent-*.whl"))


@pytest.fixture(scope="session")
def rewheel(
    agent_wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, dict[str, str]], Path]:
    """A function that makes a wheel of another version, with text put behind some files."""

    def make(version: str, suffixes: dict[str, str]) -> Path:
        old = agent_wheel.name.split("-")[1]
        path = tmp_path_factory.mktemp("wheel") / agent_wheel.name.replace(old, version)
        with zipfile.ZipFile(agent_wheel) as source, zipfile.ZipFile(path, "w") as target:
            for entry in source.infolist():
                content = source.read(entry)
                name = entry.filename.replace(f"fer_agent-{old}.", f"fer_agent-{version}.")
                if name.endswith("METADATA"):
                    content = _replace(content, f"Version: {old}", f"Version: {version}")
                if name.endswith("RECORD"):
                    content = f"{name},,\n".encode()  # pip accepts a record without hashes
                target.writestr(name, content + suffixes.get(name, "").encode())
        return path

    return make


def _replace(content: bytes, old: str, new: str) -> bytes:
    return content.replace(old.encode(), new.encode())


@dataclass
class Broker:
    """A mosquitto on a loopback port, which wants a password, and all it has heard."""

    port: int
    password_file: Path
    heard: list[tuple[str, str]]

    def wait_for(self, topic: str, text: str, timeout_s: float = 20.0) -> str:
        """Wait for a message whose topic ends so and whose payload contains the text."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            for heard_topic, payload in list(self.heard):
                if heard_topic.endswith(topic) and text in payload:
                    return payload
            time.sleep(0.1)
        pytest.fail(f"no {text!r} under {topic}: {self.heard[-5:]}")


@pytest.fixture(scope="module")
def broker(
    require_program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """A real mosquitto for a module's tests."""
    folder = tmp_path_factory.mktemp("broker")
    mosquitto, passwd, subscribe = (
        require_program(name) for name in ("mosquitto", "mosquitto_passwd", "mosquitto_sub")
    )
    subprocess.run([passwd, "-c", "-b", folder / "users", "fer", "swordfish"], check=True)
    port = free_port()
    (folder / "conf").write_text(
        f"listener {port} 127.0.0.1\npassword_file {folder}/users\nuser root\n"
    )
    (folder / "password").write_text("swordfish\n")
    server = subprocess.Popen([mosquitto, "-c", folder / "conf"], stderr=subprocess.DEVNULL)
    time.sleep(0.3)
    listener = subprocess.Popen(
        [subscribe, "-p", str(port), "-u", "fer", "-P", "swordfish", "-t", "fer/#", "-F", "%t %p"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    broker = Broker(port, folder / "password", [])

    def listen() -> None:
        for line in listener.stdout or ():
            topic, _, payload = line.rstrip("\n").partition(" ")
            broker.heard.append((topic, payload))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield broker
    for process in (listener, server):
        process.terminate()
        process.wait()
    thread.join()
    if listener.stdout:
        listener.stdout.close()


@pytest.fixture(scope="module")
def config_file(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration that replays a portrait and publishes to the module's broker."""
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(
        f"""\
[device]
id = "fer-test"
[deployment]
context = "research"
[camera.main]
source = "{CLIP}"
loop = true
fps = 10.0
[detector]
backend = "haar"
[mqtt]
broker = "mqtt://127.0.0.1:{broker.port}"
username = "fer"
password_file = "mqtt-password"
"""
    )
    return path


@pytest.fixture(scope="session")
def put_clip(root: Path) -> Callable[[Machine], None]:
    """A function that lays the portrait down that the replay camera plays."""
    portrait = root / "agent/fer_agent/demo_assets/eileen-collins.webp"

    def put(machine: Machine) -> None:
        with portrait.open("rb") as file:
            subprocess.run(
                ["nsenter", "-t", str(machine.leader), "-a", "sh", "-c", f"cat >{CLIP}"],
                stdin=file, check=True,
            )  # fmt: skip

    return put
