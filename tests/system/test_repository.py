"""What must not get into the repository, whoever commits."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED_MODEL_LIMIT_BYTES = 16 << 20


@pytest.fixture(scope="module")
def tracked(root: Path) -> list[Path]:
    if not (root / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True
    )
    return [root / name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


def test_no_file_names_a_package_index_or_somebodys_home(tracked: list[Path]) -> None:
    # Written in pieces, so that this file is none of those it looks for. A Pi's first user is pi.
    forbidden = re.compile(
        rb"(pypi|pythonhosted|download\.pytorch)"
        rb"\.org|--(extra-)?index-"
        rb"url|/(home|Users)/(?!pi/)[a-z]+/"
    )
    found = {
        path.name: match[0] for path in tracked if (match := forbidden.search(path.read_bytes()))
    }
    assert not found


def test_files_are_small_enough_for_every_clone(tracked: list[Path]) -> None:
    large = [path.name for path in tracked if path.stat().st_size > SHIPPED_MODEL_LIMIT_BYTES]
    assert not large


def test_scripts_are_executable_and_say_who_runs_them(root: Path) -> None:
    for name in (".ci/run", "scripts/install-debian-packages"):
        assert (root / name).stat().st_mode & 0o111
        assert (root / name).read_text().startswith("#!")
