from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import fer_agent

pytestmark = pytest.mark.xdist_group("wheel")
COMMANDS = {"fer-agent": "fer_agent.cli:main", "fer-train": "fer_trainer.cli:main"}


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the tracked files, as in a fresh clone, with one small model added."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "models" / "tiny" / "manifest.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    _build(checkout, "--wheel")
    (built,) = (checkout / "dist").glob("*.whl")
    return built


def _build(checkout: Path, kind: str) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", kind, str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wheel_is_named_after_the_version_and_runs_everywhere(wheel: Path) -> None:
    assert wheel.name == f"fer_agent-{fer_agent.__version__}-py3-none-any.whl"


def test_wheel_holds_the_three_packages_typed_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {"fer_agent", "fer_trainer", "fer_provisioning"}
    info = f"fer_agent-{fer_agent.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == packages | {info}
    assert all(f"{package}/py.typed" in names for package in packages)
    assert not [name for name in names if re.search(r"/tests?/|/test_|__pycache__", name)]
    assert f"{info}/licenses/LICENSE" in names


def test_wheel_holds_every_source_file(wheel: Path, checkout: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ("agent", "trainer", "provisioning"):
        for path in (checkout / room).rglob("*.py"):
            assert path.relative_to(checkout / room).as_posix() in names


def test_wheel_ships_the_models(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("fer_agent/_shipped/") for name in names if "/_shipped/" in name}
    assert {"tiny/manifest.json", "microexpnet-fer2013/model.onnx"} <= shipped
    assert all("/" in name for name in shipped)


def test_wheel_names_both_commands(wheel: Path) -> None:
    info = f"fer_agent-{fer_agent.__version__}.dist-info"
    entry_points = ConfigParser()
    entry_points.read_string(zipfile.ZipFile(wheel).read(f"{info}/entry_points.txt").decode())
    assert dict(entry_points["console_scripts"]) == COMMANDS


def test_source_distribution_builds_and_leaves_models_tests_and_units_in(checkout: Path) -> None:
    _build(checkout, "--sdist")
    (built,) = (checkout / "dist").glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "LICENSE", "tests/conftest.py", "constraints/default.txt"} <= names
    assert "models/tiny/manifest.json" in names


def test_installed_wheel_starts_and_finds_its_own_models(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-qq", "--no-index", "--no-deps", wheel]
    subprocess.run(install, check=True)
    # The libraries come from the environment of the tests; the code must not.
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(libraries)}
    code = (
        "import fer_agent, fer_agent.models.store as store;"
        "print(fer_agent.__file__); print(store.shipped_folder()); print(*store.model_names())"
    )
    shown = subprocess.run(
        [python, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    file, folder, models = shown.stdout.splitlines()
    assert Path(file).is_relative_to(tmp_path)
    assert Path(folder).is_relative_to(tmp_path)
    assert "tiny" in models.split()
    version = subprocess.run(
        [tmp_path / "venv" / "bin" / "fer-agent", "--version"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert fer_agent.__version__ in version.stdout
