"""What runs on the board, run here: a package that cannot be imported is named with its reason."""

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
    """A Python environment with packages that are broken in their own ways."""
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
