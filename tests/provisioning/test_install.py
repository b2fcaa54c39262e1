"""Tests the life of one machine: each finds it as the one before left it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fer_provisioning import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.xdist_group("life-of-a-board"),
]

SKIPPED = ("/proc", "/sys", "/run", "/tmp", "/dev", "/var/log", "/var/cache", "/var/lib/systemd",
           "/srv")  # fmt: skip
OWN_TEMPORARY = "/var/tmp/systemd-private-*"
BACKUPS = {f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")}
STORE = "/var/lib/fer-agent/models"
OF_THE_TEST_MACHINE = {"too-hot", "throttled", "disk-low"}
"""Findings about the machine that the tests run on."""

TRY = "/etc/systemd/system/fer-agent.service.d/90-try.conf"
HANG = """
import itertools, sys, time
from fer_agent.camera import threaded
frames = threaded.ThreadedCamera.frames
def hang(self):
    yield from itertools.islice(frames(self), 5)
    time.sleep(1000)
threaded.ThreadedCamera.frames = hang
from fer_agent.cli import main
sys.argv[1:] = ["run", "--config", "/etc/fer-agent/config.toml"]
main()
"""


def notified_for_us(machine: Any) -> int:
    """Microseconds from the start of the service to its last watchdog notification."""
    notified, started = (
        int(machine.show(f"{key}TimestampMonotonic")) for key in ("Watchdog", "ActiveEnter")
    )
    return notified - started


def files(machine: Any) -> set[str]:
    """List the machine's files, but those that a system writes by itself."""
    prune = " -o ".join(f"-path '{path}'" for path in (*SKIPPED, OWN_TEMPORARY))
    listed = machine.run(f"find / -xdev \\( {prune} \\) -prune -o -print").splitlines()
    return set(listed) - BACKUPS


@pytest.fixture(scope="module")
def before(machine: Any, put_clip: Callable[[Any], None]) -> set[str]:
    put_clip(machine)
    return files(machine)


@pytest.fixture(scope="module")
def run(machine: Any, provision: Any, before: set[str]) -> Callable[..., Any]:
    """Run a command of the installer on the machine."""

    def on_machine(command: str, *arguments: object) -> Any:
        return provision(command, "root@127.0.0.1", *machine.ssh_options, *arguments)

    return on_machine


@pytest.fixture(scope="module")
def install(
    run: Callable[..., Any], agent_wheel: Path, config_file: Path, broker: Any
) -> Callable[..., Any]:
    def with_configuration(*arguments: object) -> Any:
        secret = f"mqtt-password={broker.password_file}"
        return run(
            "install", "--offline", "--wheel", agent_wheel, "--config", config_file,
            "--secret", secret, *arguments,
        )  # fmt: skip

    return with_configuration


@pytest.fixture
def uncompiled(machine: Any) -> Iterator[None]:
    machine.leave_uncompiled()
    yield
    machine.run("rm /etc/pip.conf")


@dataclass(frozen=True)
class SignedRepository:
    """A signed repository with a new version of the shipped model."""

    address: str
    root: str
    model: str


@pytest.fixture
def repository(root: Path, tmp_path: Path) -> Iterator[SignedRepository]:
    folder, model = tmp_path / "repository", "microexpnet-ferplus"
    (tmp_path / "password").write_text("correct horse battery staple\n")
    shutil.copytree(root / "models" / model, tmp_path / model)
    manifest = json.loads((tmp_path / model / "manifest.json").read_text())
    manifest["version"] = "99.0.0"
    (tmp_path / model / "manifest.json").write_text(json.dumps(manifest))
    for words in (("init",), ("add", tmp_path / model)):
        subprocess.run(
            [sys.executable, "-m", "fer_trainer", "publish", *words, "--repository", folder,
             "--keys", tmp_path / "keys", "--password-file", tmp_path / "password", "--yes"],
            check=True, capture_output=True,
        )  # fmt: skip
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    trust = (folder / "metadata" / "1.root.json").read_text()
    yield SignedRepository(f"http://127.0.0.1:{server.server_port}", trust, model)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def dropin(machine: Any) -> Iterator[Callable[[str], None]]:
    """Change the unit for one test."""

    def lay(text: str) -> None:
        machine.run(f"printf '%s\\n' '[Service]' '{text}' >{TRY} && systemctl daemon-reload")

    yield lay
    machine.run(f"rm -f {TRY}; systemctl daemon-reload; systemctl reset-failed fer-agent || true")
    machine.run("systemctl restart fer-agent", check=False)


def test_dry_run_lists_the_changes_and_makes_none(
    install: Callable[..., Any], machine: Any, before: set[str]
) -> None:
    done = install("--dry-run")
    assert done.code == 0, done.err
    assert "root@127.0.0.1: would create the user fer-agent" in done.err
    assert "would start the service" in done.err
    assert files(machine) == before


def test_install_ends_with_a_service_that_publishes(
    install: Callable[..., Any], machine: Any, broker: Any
) -> None:
    done = install()
    assert done.code == 0, done.err
    assert "root@127.0.0.1: install packages: done" in done.err
    assert machine.show("ActiveState") == "active"
    assert machine.show("StatusText") == "1 of 1 cameras run"
    event = json.loads(broker.wait_for("/cameras/main/events", "fer.track.started.v1"))
    assert event["source"] == "/fer/fer-test/cameras/main"
    assert "swordfish" not in done.out + done.err + machine.journal()


def test_files_have_their_owners_and_modes(machine: Any) -> None:
    modes = machine.run(
        "stat -c '%n %U %G %a' /etc/fer-agent /etc/fer-agent/config.toml "
        "/etc/fer-agent/credentials/mqtt-password /var/lib/fer-agent"
    )
    assert modes.splitlines() == [
        "/etc/fer-agent root fer-agent 750",
        "/etc/fer-agent/config.toml root fer-agent 640",
        "/etc/fer-agent/credentials/mqtt-password root root 600",
        "/var/lib/fer-agent fer-agent fer-agent 755",
    ]
    assert machine.run("ps -o user:20= -C fer-agent") == "fer-agent"


def test_second_install_changes_nothing_and_says_so(
    install: Callable[..., Any], machine: Any
) -> None:
    pid = machine.show("MainPID")
    done = install("--json")
    assert done.code == 0, done.err
    (host,) = json.loads(done.out)["hosts"]
    assert (host["state"], host["changes"]) == ("unchanged", [])
    assert machine.show("MainPID") == pid


def test_status_logs_and_doctor_work_over_ssh(run: Callable[..., Any]) -> None:
    done = run("status", "--json")
    (host,) = json.loads(done.out)["hosts"]
    assert (done.code, host["service"], host["installed"]) == (0, "active", True)
    assert "camera main" in run("logs", "--lines", 100).out
    report = json.loads(run("doctor", "--json").out)["hosts"]["root@127.0.0.1"]
    assert "broker" in report["checked"]
    assert {one["id"] for one in report["findings"]} <= OF_THE_TEST_MACHINE


def test_status_and_doctor_work_on_the_board(machine: Any) -> None:
    assert json.loads(machine.run("fer-agent status --json"))["service"] == "active"
    report = json.loads(machine.run("fer-agent doctor --json", check=False))
    assert {one["id"] for one in report["findings"]} <= OF_THE_TEST_MACHINE
    assert "camera main" in machine.run("fer-agent logs")
    assert "pip install" in machine.run("fer-agent uninstall 2>&1", check=False)


def test_the_timer_syncs_a_model_inside_its_sandbox(
    machine: Any, broker: Any, repository: SignedRepository
) -> None:
    assert machine.run("systemctl is-enabled fer-agent-sync.timer") == "enabled"
    # Without a repository it does nothing, and that is no failure.
    machine.run("systemctl start fer-agent-sync.service")
    assert not machine.succeeds(f"test -e {STORE}/.state/sync.json")
    dropin = "/etc/systemd/system/fer-agent-sync.service.d"
    lines = [
        "[Service]",
        f"Environment=FER_AGENT__MODELS__REPOSITORY={repository.address}",
        "Environment=FER_AGENT__MODELS__ROOT_FILE=/etc/fer-agent/root.json",
        "Environment=FER_AGENT__MODELS__SLOWDOWN_LIMIT=20",
    ]
    machine.run(f"mkdir {dropin} && cat >{dropin}/try.conf <<'END'\n{chr(10).join(lines)}\nEND")
    machine.run(f"cat >/etc/fer-agent/root.json <<'END'\n{repository.root}\nEND")
    broker.heard.clear()
    machine.run("systemctl daemon-reload; systemctl start fer-agent-sync.service", check=False)
    said = machine.run("journalctl -u fer-agent-sync -o cat --no-pager")
    assert machine.run("systemctl show fer-agent-sync -p ExecMainStatus --value") == "0", said
    linked = machine.run(f"readlink {STORE}/{repository.model}")
    assert linked.startswith(f".versions/{repository.model}/99.0.0-")
    assert machine.run(f"stat -c %U {STORE}/.state/sync.json") == "fer-agent"
    broker.wait_for("/info", '"version":"99.0.0"')
    machine.run(f"rm -r {dropin} /etc/fer-agent/root.json; systemctl daemon-reload")


def test_doctor_of_another_user_says_that_it_wants_root(machine: Any) -> None:
    said = machine.run("su pi -c 'fer-agent doctor --json'", check=False)
    assert "config-forbidden" in {one["id"] for one in json.loads(said)["findings"]}


def test_killed_service_comes_back(machine: Any) -> None:
    pid = machine.show("MainPID")
    machine.run(f"kill -KILL {pid}")
    machine.wait_for("systemctl show fer-agent -p NRestarts --value", "1")
    machine.wait_for("systemctl is-active fer-agent", "active")
    assert machine.show("MainPID") != pid


def test_service_that_fails_again_and_again_waits_longer(
    machine: Any, dropin: Callable[[str], None]
) -> None:
    dropin("RestartSec=1\nExecStart=\nExecStart=/bin/false")
    machine.run("systemctl restart fer-agent", check=False)

    def waits() -> bool:
        state = machine.run("systemctl show fer-agent -p NRestarts,SubState --value")
        restarts, substate = state.split()
        return int(restarts) >= 2 and substate == "start-pre"

    machine.wait_until(waits, "a wait before the third start")


def test_missing_camera_is_published_and_no_failed_start(
    machine: Any, broker: Any, dropin: Callable[[str], None]
) -> None:
    machine.run("sed -i.good 's|^source = .*|source = \"/dev/video9\"|' /etc/fer-agent/config.toml")
    dropin("WatchdogSec=10")
    broker.heard.clear()
    machine.run("systemctl restart fer-agent")
    broker.wait_for("/status", '"degraded"')
    broker.wait_for("/cameras/main/status", '"offline"')
    # Notifications for longer than two periods after the start.
    machine.wait_until(lambda: notified_for_us(machine) > 21e6, "watchdog notifications")
    assert (machine.show("ActiveState"), machine.show("NRestarts")) == ("active", "0")
    machine.run("mv /etc/fer-agent/config.toml.good /etc/fer-agent/config.toml")


def test_call_that_does_not_return_trips_the_watchdog(
    machine: Any, dropin: Callable[[str], None]
) -> None:
    machine.run(f"cat >/srv/hang.py <<'END'\n{HANG}\nEND")
    start = "ExecStart=/opt/fer-agent/venv/bin/python /srv/hang.py"
    dropin(f"WatchdogSec=10\nRestartSec=3600\nExecStart=\n{start}")
    machine.run("systemctl restart fer-agent")
    machine.wait_for(
        "systemctl show fer-agent -p Result,SubState --value", "watchdog\nauto-restart"
    )
    journal = machine.run("journalctl -u fer-agent -n 200 --no-pager -o cat")
    assert "Watchdog timeout" in journal
    assert "camera main does not move" in journal
    assert 'File "/srv/hang.py"' in journal  # every thread's stack names the call


def test_wrong_configuration_stays_down_with_78(machine: Any, run: Callable[..., Any]) -> None:
    machine.run("cp -p /etc/fer-agent/config.toml /srv/good.toml")
    machine.run("echo '[detektor]' >>/etc/fer-agent/config.toml")
    machine.run("systemctl restart fer-agent", check=False)
    # A service that is to be started again is `activating`, and never `failed`.
    assert machine.show("ExecMainStatus") == "78"
    assert (machine.show("ActiveState"), machine.show("NRestarts")) == ("failed", "0")
    assert "detektor" in machine.journal()
    done = run("status")
    assert (done.code, "failed" in done.out, "78" in done.out) == (1, True, True)


def test_wrong_configuration_is_refused_before_anything_is_touched(
    run: Callable[..., Any], tmp_path: Path, agent_wheel: Path, machine: Any
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[deployment]\ncontext = "workplace"\n')
    done = run("install", "--offline", "--wheel", agent_wheel, "--config", wrong)
    assert done.code == 78
    assert "workplace" in done.err
    assert machine.show("ActiveState") == "failed"


def test_install_again_corrects_the_configuration(
    install: Callable[..., Any], machine: Any
) -> None:
    done = install()
    assert done.code == 0, done.err
    assert "write the configuration: done" in done.err
    assert "install packages" not in done.err
    assert machine.show("ActiveState") == "active"


@pytest.mark.usefixtures("uncompiled")
def test_unhealthy_upgrade_goes_back(
    run: Callable[..., Any], rewheel: Callable[..., Path], machine: Any
) -> None:
    machine.run("touch /var/lib/fer-agent/data")
    before = machine.run("readlink /opt/fer-agent/venv; cat /etc/fer-agent/config.toml")
    bug = "raise SystemError('broken on purpose')\n"
    broken = rewheel("9.9.8", {"fer_agent/app/compose.py": bug})
    done = run("upgrade", "--offline", "--wheel", broken)
    assert done.code == 69
    assert "broken on purpose" in done.err, done.err
    assert "went back to" in done.err
    assert machine.run("readlink /opt/fer-agent/venv; cat /etc/fer-agent/config.toml") == before
    assert machine.show("ActiveState") == "active"
    assert "9.9.8" not in machine.run("ls /opt/fer-agent/releases")


def test_going_back_is_finished_when_the_connection_is_cut(machine: Any) -> None:
    before = machine.run("readlink /opt/fer-agent/venv")
    broken = "/opt/fer-agent/releases/9.9.7-0"
    machine.run(
        f"mkdir -p {broken}/bin && cp -a /opt/fer-agent/venv/bundle {broken} && "
        f"cp /bin/false {broken}/bin/fer-agent"
    )
    script = shlex.quote(layout.board_script("activate.sh"))
    machine.run(f"sh -c {script} fer {broken} stamp 2>&1 | true")  # each write finds a closed pipe
    assert machine.run("readlink /opt/fer-agent/venv") == before
    assert machine.show("ActiveState") == "active"
    assert not machine.succeeds(f"test -e {broken}")


@pytest.mark.usefixtures("uncompiled")
def test_reinstall_makes_the_environment_again_beside_the_old(
    run: Callable[..., Any], machine: Any, agent_wheel: Path
) -> None:
    before = machine.run("readlink /opt/fer-agent/venv")
    done = run("upgrade", "--offline", "--wheel", agent_wheel, "--reinstall")
    assert done.code == 0, done.err
    assert machine.run("readlink /opt/fer-agent/venv") == f"{before}~2"
    again = run("upgrade", "--offline", "--wheel", agent_wheel)
    assert (again.code, "nothing to change" in again.err) == (0, True)


@pytest.mark.usefixtures("uncompiled")
def test_upgrade_keeps_configuration_and_data(
    run: Callable[..., Any], rewheel: Callable[..., Path], machine: Any
) -> None:
    before = machine.run("cat /etc/fer-agent/config.toml")
    done = run("upgrade", "--offline", "--wheel", rewheel("9.9.9", {}), "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["hosts"][0]["version"] == "9.9.9"
    assert machine.run("cat /etc/fer-agent/config.toml") == before
    assert machine.succeeds("test -e /var/lib/fer-agent/data")


def test_stop_is_quick_and_ends_every_track(machine: Any, broker: Any) -> None:
    broker.wait_for("/cameras/main/state", '"faces":[{')
    broker.heard.clear()
    machine.run("systemctl stop fer-agent")
    # systemd kills what takes longer than TimeoutStopSec, and the result is `timeout` then.
    broker.wait_for("/cameras/main/events", "fer.track.ended.v1")
    broker.wait_for("/status", '"stopped"')
    assert machine.show("Result") == "success"


def test_uninstall_keeps_the_data(run: Callable[..., Any], machine: Any) -> None:
    done = run("uninstall")
    assert done.code == 0, done.err
    assert machine.succeeds("test -e /var/lib/fer-agent/data")
    assert not machine.succeeds("systemctl cat fer-agent")
    assert not machine.succeeds("test -e /opt/fer-agent -o -e /etc/fer-agent")


def test_purge_leaves_nothing_behind(
    run: Callable[..., Any], machine: Any, before: set[str]
) -> None:
    done = run("uninstall", "--purge")
    assert done.code == 0, done.err
    assert files(machine) == before
    assert not machine.succeeds("id fer-agent")
    again = run("uninstall", "--purge")
    assert (again.code, "nothing to change" in again.err) == (0, True)
