"""Boots real boards to install on: a Debian root with systemd, reached through a real sshd.

The root is made once by debootstrap and kept in the user's cache; each machine boots a throw-away
copy of it in memory within a second or two. Workers and runs side by side share the root, and a
killed one takes its machines along.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fer_provisioning.board import BoardKind, TargetBoard
from fer_provisioning.bundle import Bundler

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
WAIT_TIMEOUT_S = 300.0
"""Limit of every wait for an event that must come; only a hang takes so long."""

COMMAND_TIMEOUT_S = 1500.0
"""For a whole run of the installer, which unpacks and compiles a hundred megabytes."""

DEBOOTSTRAP_ATTEMPTS = 3
"""Mirrors are sometimes out of reach for a moment; fetched packages are not fetched again."""

CLIP = "/srv/portrait.webp"


@dataclass
class BootedMachine:
    """A booted Debian with an sshd on a loopback port."""

    name: str
    leader: int
    port: int
    key: Path
    known_hosts: Path

    def run(self, command: str, *, check: bool = True, stdin: bytes | None = None) -> str:
        """Run a shell command inside as root; returns its stdout."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-a", "sh", "-c", command],
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True, check=False, timeout=WAIT_TIMEOUT_S,
        )  # fmt: skip
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            pytest.fail(f"{command!r} ended with {done.returncode}: {out}{err}")
        return out.strip()

    def put_folder(self, folder: Path, path: str) -> None:
        """Copy a folder's content into a new folder inside."""
        tar = subprocess.run(["tar", "-C", folder, "-c", "."], capture_output=True, check=True)
        self.run(f"mkdir -p {path} && tar -x -C {path}", stdin=tar.stdout)

    def leave_uncompiled(self) -> None:
        """Let pip compile no modules here, which halves its time; Python compiles those it uses."""
        self.run(r"printf '[install]\ncompile = no\n' >/etc/pip.conf")

    def succeeds(self, command: str) -> bool:
        """Tell whether a shell command inside ends with 0."""
        marker = self.run(f"({command}) >/dev/null 2>&1 && echo yes || echo no")
        return marker == "yes"

    def show(self, key: str) -> str:
        """Return one of systemd's properties of the service."""
        return self.run(f"systemctl show fer-agent.service -p {key} --value")

    def wait_for(self, command: str, expected: str) -> None:
        """Wait until a command prints the expected text."""
        self.wait_until(lambda: self.run(command, check=False) == expected, command)

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds; on a hang the service's log is shown."""
        deadline_s = time.monotonic() + WAIT_TIMEOUT_S
        while not condition():
            if time.monotonic() > deadline_s:
                pytest.fail(f"waited in vain for {what}: {self.journal()}")
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
    """Find a TCP port that nobody listens on, below those that the system gives to clients."""
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    while True:
        port = 10_000 + secrets.randbelow(int(limits[0]) - 10_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of a run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a shared file or folder: of several processes one makes it, others wait."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def debian(require_program: Callable[[str], Path]) -> Path:
    """The root of a Debian with systemd and sshd; made once, about 90 seconds."""
    if os.geteuid() != 0:
        pytest.skip("booting a Debian needs root")
    debootstrap = require_program("debootstrap")
    for name in ("systemd-nspawn", "unshare", "setpriv", "nsenter"):
        require_program(name)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-agent-tests"
    recipe = hashlib.sha256((PACKAGES + PREPARE).encode()).hexdigest()[:8]
    root = cache / f"bookworm-{recipe}"
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "making"):
        if not root.is_dir():
            for leftover in cache.glob("making-*"):
                shutil.rmtree(leftover)
            _make_root(debootstrap, cache, root)
    return root


def _make_root(debootstrap: Path, cache: Path, root: Path) -> None:
    work = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
    (debs := work / "debs").mkdir()
    # Mounts of debootstrap end with its mount namespace, also when it is killed.
    command = ["unshare", "--mount", debootstrap, f"--cache-dir={debs}", "--variant=minbase",
               f"--include={PACKAGES}", "bookworm"]  # fmt: skip
    for attempt in range(DEBOOTSTRAP_ATTEMPTS):
        made = work / f"root-{attempt}"
        done = subprocess.run(
            [*command, made], capture_output=True, text=True, check=False,
            env={**os.environ, "DPKG_FORCE": "unsafe-io"},
        )  # fmt: skip
        if done.returncode == 0:
            break
    else:
        pytest.fail(f"debootstrap failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    subprocess.run(["chroot", made, "sh", "-c", PREPARE], check=True)
    made.rename(root)
    shutil.rmtree(work)


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
def boot(root: Path, key: Path, folder: Path) -> Iterator[BootedMachine]:
    """Boot a copy of the root and start its sshd; it ends with the context."""
    name = f"fer-{secrets.token_hex(4)}"
    log = (folder / f"{name}.log").open("wb")
    # --read-only shares the lock on the root; with --volatile=overlay the copy is written all the
    # same. The machine's processes die with the test run, even when that is killed.
    nspawn = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL",
         "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
         "systemd-nspawn", "-q", "-D", root, "--volatile=overlay", "--read-only", "--boot",
         "--register=no", "--keep-unit", "-M", name],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    leader = None
    try:
        leader = _wait_until_running(nspawn, Path(log.name))
        machine = BootedMachine(name, leader, 0, key, folder / f"{name}.known_hosts")
        machine.run(f"hostname {name} && echo 127.0.1.1 {name} >>/etc/hosts")
        _start_sshd(machine)
        yield machine
    finally:
        if leader is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, signal.SIGRTMIN + 4)
            with contextlib.suppress(subprocess.TimeoutExpired):
                nspawn.wait(WAIT_TIMEOUT_S)
        nspawn.kill()
        nspawn.wait()
        log.close()


def _wait_until_running(nspawn: subprocess.Popen[bytes], log: Path) -> int:
    deadline_s = time.monotonic() + WAIT_TIMEOUT_S
    while time.monotonic() < deadline_s and nspawn.poll() is None:
        found = [leader for child in _children(nspawn.pid) for leader in _children(child)]
        if found:
            ask = ["nsenter", "-t", str(found[0]), "-a", "systemctl", "is-system-running"]
            done = subprocess.run(ask, capture_output=True, text=True, check=False)
            if done.stdout.strip() in ("running", "degraded"):
                return found[0]
        time.sleep(0.1)
    pytest.fail(f"the Debian root did not boot: {log.read_text(errors='replace')[-2000:]}")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):  # it is gone
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _start_sshd(machine: BootedMachine) -> None:
    public = machine.key.with_suffix(".pub").read_text().strip()
    for home, user in (("/root", "root"), ("/home/pi", "pi")):
        machine.run(
            f"mkdir -p -m 700 {home}/.ssh && cd {home}/.ssh && "
            f"echo {shlex.quote(public)} >authorized_keys && chown -R {user}: ."
        )
    machine.run("mkdir -p /run/sshd")
    # Debian's sshd notifies systemd when it listens, and fails when the port was taken meanwhile.
    sshd = "systemd-run -q --collect --service-type=notify /usr/sbin/sshd -D"
    deadline_s = time.monotonic() + WAIT_TIMEOUT_S
    while True:
        machine.port = free_port()
        if machine.succeeds(f"{sshd} -o ListenAddress=127.0.0.1 -p {machine.port}"):
            break
        assert time.monotonic() < deadline_s, "sshd does not start"
    host_key = machine.run("cat /etc/ssh/ssh_host_ed25519_key.pub").rsplit(" ", 1)[0]
    machine.known_hosts.write_text(f"[127.0.0.1]:{machine.port} {host_key}\n")


@pytest.fixture(scope="module")
def machine(
    debian: Path, ssh_key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BootedMachine]:
    """One booted machine for all tests of a module, in their order."""
    with boot(debian, ssh_key, tmp_path_factory.mktemp("machine")) as booted:
        yield booted


@pytest.fixture(scope="module")
def other_machine(
    debian: Path, ssh_key: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BootedMachine]:
    """A second machine beside the first."""
    with boot(debian, ssh_key, tmp_path_factory.mktemp("other")) as booted:
        yield booted


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of an installer's command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def provision() -> Callable[..., CommandResult]:
    """A function that runs `fer-agent` with the given arguments, without a terminal."""

    def run(*arguments: object) -> CommandResult:
        done = subprocess.run(
            [Path(sys.executable).with_name("fer-agent"), *map(str, arguments)],
            capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return CommandResult(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def password(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the password of the user `pi`."""
    path = tmp_path_factory.mktemp("sudo") / "password"
    path.write_text("raspberry\n")
    return path


@pytest.fixture
def terminal() -> Callable[..., tuple[int, str]]:
    """A function that runs the installer on a terminal and answers its questions."""

    def run(
        command: list[object],
        answers: dict[str, str],
        when: tuple[str, Callable[[], object]] | None = None,
        stop_at: str = "",
    ) -> tuple[int, str]:
        near, far = os.openpty()
        process = subprocess.Popen(
            [Path(sys.executable).with_name("fer-agent"), *map(str, command)],
            stdin=far, stdout=far, stderr=far, start_new_session=True,
        )  # fmt: skip
        os.close(far)
        said, waiting = "", dict(answers)
        with contextlib.suppress(OSError):
            while chunk := os.read(near, 4096).decode(errors="replace"):
                said += chunk
                for question in [one for one in waiting if one in said]:
                    os.write(near, f"{waiting.pop(question)}\n".encode())
                if when is not None and when[0] in said:
                    when[1]()
                    when = None
                if stop_at and stop_at in said:
                    process.send_signal(signal.SIGINT)
                    stop_at = ""
        os.close(near)
        return process.wait(), said

    return run


@pytest.fixture(scope="session")
def debian_board() -> TargetBoard:
    """The machines as the installer identifies them."""
    return TargetBoard(BoardKind.PLAIN, "", (3, 11), platform.machine(), (2, 36), 252, "default")


@pytest.fixture(scope="session")
def agent_wheel(root: Path, run_folder: Path, debian_board: TargetBoard) -> Path:
    """The wheel of this checkout; the wheels it needs on the machines are in the cache then."""
    folder = run_folder / "agent-wheel"
    with locked(folder):
        if not folder.is_dir():
            work = Path(tempfile.mkdtemp(dir=run_folder))
            build = ["build", "--no-isolation", "--wheel", "--outdir", work, root]
            subprocess.run([sys.executable, "-m", *build], check=True, capture_output=True)
            with _bundle(debian_board, next(work.glob("fer_agent-*.whl"))):
                work.rename(folder)
    return next(folder.glob("fer_agent-*.whl"))


@contextlib.contextmanager
def _bundle(board: TargetBoard, wheel: Path) -> Iterator[Path]:
    with contextlib.closing(Bundler(wheel=wheel, offline=True, say=print)) as bundler:
        yield bundler.bundle(board).archive


@pytest.fixture
def put_wheels(agent_wheel: Path, tmp_path: Path) -> Callable[[BootedMachine, TargetBoard], None]:
    """A function that copies every wheel that a board needs to a machine's /srv/wheels."""

    def put(machine: BootedMachine, board: TargetBoard) -> None:
        with _bundle(board, agent_wheel) as archive, tarfile.open(archive) as bundle:
            bundle.extractall(tmp_path / "bundle", filter="data")
        for name in ("wheels", "agent"):
            machine.put_folder(tmp_path / "bundle" / name, "/srv/wheels")

    return put


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
    """A mosquitto with a password on a loopback port, and the messages published to it."""

    port: int
    password_file: Path
    heard: list[tuple[str, str]]

    def wait_for(self, topic: str, text: str) -> str:
        """Wait for a message whose topic ends so and whose payload contains the text."""
        deadline_s = time.monotonic() + WAIT_TIMEOUT_S
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
    (folder / "password").write_text("swordfish\n")
    server, port = _start_mosquitto(mosquitto, folder)
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


def _start_mosquitto(mosquitto: Path, folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a broker; when its port was taken meanwhile it ends, and another port is tried."""
    deadline_s = time.monotonic() + WAIT_TIMEOUT_S
    while time.monotonic() < deadline_s:
        port = free_port()
        (folder / "conf").write_text(
            f"listener {port} 127.0.0.1\npassword_file {folder}/users\nuser root\n"
        )
        server = subprocess.Popen([mosquitto, "-c", folder / "conf"], stderr=subprocess.DEVNULL)
        while server.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return server, port
            time.sleep(0.05)
    pytest.fail("mosquitto does not start")


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
fps = 2.0
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
def put_clip(root: Path) -> Callable[[BootedMachine], None]:
    """A function that copies the portrait that the replay camera plays to a machine."""
    portrait = root / "agent/fer_agent/assets/eileen-collins.webp"

    def put(machine: BootedMachine) -> None:
        machine.run(f"cat >{CLIP}", stdin=portrait.read_bytes())

    return put
