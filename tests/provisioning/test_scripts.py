"""Tests the scripts that run on a board, here: imports of packages, and drop-ins of releases."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fer_provisioning import layout

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python environment with packages that are broken in different ways."""
    folder = tmp_path_factory.mktemp("releases") / "1.0.0-ab"
    make = [sys.executable, "-m", "venv", "--without-pip", folder]
    subprocess.run(make, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "good.py").touch()
    (packages / "newer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    (packages / "broken.py").write_text("raise ImportError('libGL.so.1: cannot open')\n")
    (folder / "bundle").mkdir()
    return folder


def check_imports(release: Path, *modules: str) -> tuple[int, str]:
    script = layout.board_script("check_imports.sh")
    done = subprocess.run(
        ["sh", "-c", script, "fer", release, *modules], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("newer", "newer: illegal instruction on this processor"),
        ("broken", "broken: ImportError: libGL.so.1: cannot open (exit 1)"),
        ("absent", "absent: ModuleNotFoundError"),
    ],
)
def test_package_that_cannot_be_imported_is_named(release: Path, module: str, said: str) -> None:
    code, err = check_imports(release, "good", module)
    assert code == 1
    assert said in err
    assert not (release / ".complete").exists()


def test_release_whose_packages_all_import_is_complete(release: Path) -> None:
    assert check_imports(release, "good", "json") == (0, "")
    assert (release / ".complete").exists()


class BoardFolders:
    """A board's folders for `activate.sh`, with a systemd that reports a healthy service."""

    def __init__(self, folder: Path) -> None:
        self.units, self._prefix = folder / "units", folder / "opt"
        self._programs = folder / "bin"
        for path in (self.units, self._prefix / "releases", self._programs):
            path.mkdir(parents=True)
        for name, code in (("systemctl", "echo 7"), ("sleep", ":"), ("journalctl", ":")):
            program = self._programs / name
            program.write_text(f"#!/bin/sh\n{code}\n")
            program.chmod(0o755)

    def activate(self, name: str, dropins: tuple[str, ...]) -> None:
        """Switch to a release that has these drop-ins."""
        release = self._prefix / "releases" / name
        source = release / "bundle" / "systemd"
        for path in (layout.UNIT, *dropins):
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(f"# {name}\n")
        script = layout.board_script("activate.sh")
        for there, here in ((layout.UNIT_FOLDER, self.units), (layout.PREFIX, self._prefix)):
            script = script.replace(there, str(here))
        subprocess.run(
            ["sh", "-c", script, "fer", release, "stamp"],
            env={"PATH": f"{self._programs}:/usr/bin:/bin"},
            check=True,
        )

    def dropins(self) -> set[str]:
        return {str(path.relative_to(self.units)) for path in self.units.glob("*.d/*")}


def test_each_release_lays_its_own_drop_ins_and_the_owners_stay(tmp_path: Path) -> None:
    board = BoardFolders(tmp_path)
    agent, sync = (f"{unit}.d/10-jetson.conf" for unit in (layout.UNIT, layout.SYNC_UNIT))
    board.activate("2", ("10-jetson.conf", f"{layout.SYNC_UNIT}.d/10-jetson.conf"))
    assert board.dropins() == {agent, sync}
    own = f"{layout.SYNC_UNIT}.d/20-mine.conf"
    (board.units / own).touch()
    board.activate("1", ("10-jetson.conf",))
    assert board.dropins() == {agent, own}
    assert (board.units / agent).read_text() == "# 1\n"
