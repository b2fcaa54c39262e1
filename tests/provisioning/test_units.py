from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from fer_provisioning import layout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAX_EXPOSURE_TENTHS = 20
OLD_DELAY = "growing-delay-before-254.conf"


def lay_out(folder: Path, dropins: list[str], unit: str = layout.UNIT) -> None:
    units = folder / "etc/systemd/system"
    (units / f"{unit}.d").mkdir(parents=True)
    source = layout.units_folder()
    shutil.copy(source / unit, units)
    for name in dropins:
        shutil.copy(source / name, units / f"{unit}.d" / f"10-{name}")


def settings(name: str) -> list[str]:
    """Return a drop-in's lines, without comments and the section."""
    lines = (layout.units_folder() / name).read_text().splitlines()
    return [line for line in lines if "=" in line and not line.startswith("#")]


@pytest.mark.parametrize(
    "dropins",
    [[OLD_DELAY], ["pi.conf", OLD_DELAY], ["jetson.conf", OLD_DELAY]],
    ids=["plain", "pi", "jetson"],
)
def test_unit_is_hardened(
    tmp_path: Path, require_program: Callable[[str], Path], dropins: list[str]
) -> None:
    lay_out(tmp_path, dropins)
    done = subprocess.run(
        [require_program("systemd-analyze"), "security", "--offline=true", "--no-pager",
         f"--root={tmp_path}", f"--threshold={MAX_EXPOSURE_TENTHS}", layout.UNIT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dropins", [[], ["jetson-sync.conf"]], ids=["plain", "jetson"])
def test_sync_unit_is_hardened(
    tmp_path: Path, require_program: Callable[[str], Path], dropins: list[str]
) -> None:
    lay_out(tmp_path, dropins, layout.SYNC_UNIT)
    done = subprocess.run(
        [require_program("systemd-analyze"), "security", "--offline=true", "--no-pager",
         f"--root={tmp_path}", f"--threshold={MAX_EXPOSURE_TENTHS}", layout.SYNC_UNIT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_systemd_knows_every_key_of_the_sync_units(
    tmp_path: Path, require_program: Callable[[str], Path]
) -> None:
    for name in (layout.SYNC_UNIT, layout.SYNC_TIMER):
        text = (layout.units_folder() / name).read_text()
        if name == layout.SYNC_UNIT:
            text += (layout.units_folder() / "jetson-sync.conf").read_text()
        (tmp_path / name).write_text(text.replace(f"{layout.VENV}/bin/fer-agent", "/bin/true"))
    done = subprocess.run(
        [require_program("systemd-analyze"), "verify", "--man=no", tmp_path / layout.SYNC_TIMER],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_systemd_knows_every_key_of_the_unit(
    tmp_path: Path, require_program: Callable[[str], Path]
) -> None:
    unit = tmp_path / layout.UNIT
    text = (layout.units_folder() / layout.UNIT).read_text()
    for name in ("pi.conf", "jetson.conf", OLD_DELAY):
        text += (layout.units_folder() / name).read_text()
    unit.write_text(text.replace("/opt/fer-agent/venv/bin/fer-agent", "/bin/true"))
    done = subprocess.run(
        [require_program("systemd-analyze"), "verify", "--man=no", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert (done.returncode, said) == (0, []), done.stderr


def test_sync_gets_the_gpu_that_the_agent_gets_and_no_folder_of_the_agents() -> None:
    """A folder in /run would be removed at the end of a sync, while the agent uses it."""
    agent, sync = settings("jetson.conf"), settings("jetson-sync.conf")
    devices = [line for line in agent if line.startswith("DeviceAllow=")]
    assert [line for line in devices if "char-media" not in line] == [
        line for line in sync if line.startswith("DeviceAllow=")
    ]
    assert not any("RuntimeDirectory" in line or "TMPDIR" in line for line in sync)
    assert {"MemoryDenyWriteExecute=no", "MemoryMax=3G"} <= {*agent} & {*sync}


def test_every_open_door_is_explained(root: Path) -> None:
    table = (root / "docs/install.md").read_text()
    for name in ("pi.conf", "jetson.conf", "jetson-sync.conf"):
        for line in settings(name):
            key, _, value = line.partition("=")
            if key in ("DeviceAllow", "RestrictAddressFamilies", "PrivateTmp",
                       "MemoryDenyWriteExecute", "PrivateIPC", "PrivateDevices"):  # fmt: skip
                assert f"`{key}={value}`" in table or f"`{value.split()[0]}`" in table, line
