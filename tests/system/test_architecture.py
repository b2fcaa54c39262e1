"""The structure of the code: its check finds what it should, and the docs name files that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = "scripts/architecture.py"
OTHERS = {"src/train.py"}  # of microsoft/FERPlus
COPIED = ("agent/fer_agent", "trainer/fer_trainer", "provisioning/fer_provisioning")


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    for folder in COPIED:
        for file in (root / folder).rglob("*.py"):
            place = tmp_path / file.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    for name in (SCRIPT, "pyproject.toml", "docs/images/architecture.svg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tmp_path / name)
    return tmp_path


def run(root: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, str(root / SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr
    return done.returncode, done.stdout


def add(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + text)


def test_the_code_keeps_to_the_floors_and_the_picture_shows_them(root: Path) -> None:
    assert run(root, "--check") == (0, "")


def test_a_circle_of_modules_is_found(tree: Path) -> None:
    add(tree / "agent/fer_agent/vision/crop.py", "\nimport fer_agent.vision.tracker\n")
    add(tree / "agent/fer_agent/vision/assignment.py", "\nimport fer_agent.vision.crop\n")
    status, told = run(tree, "--check")
    assert status == 1
    (line,) = [line for line in told.splitlines() if "vision" in line]
    assert line.startswith("imports go in a circle: ")
    for start, end in (("crop", "tracker"), ("tracker", "assignment"), ("assignment", "crop")):
        step = rf"fer_agent\.vision\.{start} imports fer_agent\.vision\.{end} "
        assert re.search(step + rf"\(agent/fer_agent/vision/{start}\.py:\d+\)", line)


def test_a_circle_of_packages_through_a_type_only_import_is_found(tree: Path) -> None:
    add(tree / "trainer/fer_trainer/one/__init__.py", "")
    add(tree / "trainer/fer_trainer/other/__init__.py", "")
    add(tree / "trainer/fer_trainer/one/a.py", "import fer_trainer.other.b\n")
    guarded = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    "
    add(tree / "trainer/fer_trainer/other/c.py", guarded + "from fer_trainer.one import d\n")
    add(tree / "trainer/fer_trainer/other/b.py", "")
    add(tree / "trainer/fer_trainer/one/d.py", "")
    status, told = run(tree, "--check")
    assert status == 1
    assert "fer_trainer.one imports fer_trainer.other (trainer/fer_trainer/one/a.py:1)" in told
    assert "fer_trainer.other imports fer_trainer.one (trainer/fer_trainer/other/c.py:4)" in told


def test_imports_up_and_sideways_are_found(tree: Path) -> None:
    add(tree / "agent/fer_agent/models/up.py", "import fer_agent.vision.crop\n")
    add(tree / "agent/fer_agent/camera/side.py", "import fer_agent.detector.letterbox\n")
    status, told = run(tree, "--check")
    assert status == 1
    assert (
        "agent/fer_agent/models/up.py:1 imports fer_agent.vision.crop, but vision is above models\n"
    ) in told
    assert (
        "agent/fer_agent/camera/side.py:1 imports fer_agent.detector.letterbox, "
        "but detector is on the same floor as camera\n"
    ) in told


def test_modules_in_no_package_and_packages_on_no_floor_are_found(tree: Path) -> None:
    add(tree / "agent/fer_agent/helpers.py", "")
    add(tree / "agent/fer_agent/spare/__init__.py", "")
    status, told = run(tree, "--check")
    assert status == 1
    assert "agent/fer_agent/helpers.py is in no package" in told
    assert "fer_agent.spare is on no floor" in told


def test_a_picture_is_stale_after_a_new_arrow_or_many_new_lines_but_not_after_a_few(
    tree: Path,
) -> None:
    stale = "docs/images/architecture.svg is out of date"
    add(tree / "agent/fer_agent/watch/few.py", "\n" * 50)
    assert stale not in run(tree, "--check")[1]
    add(tree / "agent/fer_agent/watch/few.py", "\n" * 100)
    assert stale in run(tree, "--check")[1]
    assert run(tree) == (0, "")
    assert stale not in run(tree, "--check")[1]
    add(tree / "agent/fer_agent/bench/arrow.py", "import fer_agent.watch.table\n")
    assert stale in run(tree, "--check")[1]


def test_lines_are_counted_in_each_package_and_in_all(tree: Path) -> None:
    status, told = run(tree, "--lines")
    counts = {name: int(count.replace(",", "")) for count, name in re.findall(r"(\S+) (.+)", told)}
    assert status == 0
    files = (tree / "agent/fer_agent").rglob("*.py")
    total = counts.pop("in all")
    assert total == sum(len(file.read_text().splitlines()) for file in files)
    assert total == sum(counts.values())
    assert counts["errors"] == len((tree / "agent/fer_agent/errors.py").read_text().splitlines())


def test_python_files_and_modules_named_in_the_docs_exist(root: Path) -> None:
    files = [
        f"/{path.relative_to(root)}"
        for folder in ("agent", "trainer", "provisioning", "tests", "scripts", "benchmarks")
        for path in (root / folder).rglob("*.py")
    ]
    pages = [*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("*/README.md")]
    named, missing = set(), set()
    for page in pages:
        text = page.read_text(encoding="utf-8")
        # A path stands in backquotes, perhaps after `python` and before options.
        for path in re.findall(r"`(?:python )?([\w./-]+\.py)\b[^`]*`", text):
            named.add(path)
            if path not in OTHERS and not any(file.endswith(f"/{path}") for file in files):
                missing.add(f"{page.name}: {path}")
        for module in re.findall(r"\bfer_(?:agent|trainer|provisioning)(?:\.\w+)+", text):
            # The last part may be a function.
            paths = [f"/{part.replace('.', '/')}" for part in (module, module.rpartition(".")[0])]
            ends = tuple(f"{path}{end}" for path in paths for end in (".py", "/__init__.py"))
            if not any(file.endswith(ends) for file in files):
                missing.add(f"{page.name}: {module}")
    assert len(named) > 60
    assert not sorted(missing)
