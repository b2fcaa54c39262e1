from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("numpy", "cv2", "onnxruntime", "paho", "pydantic", "tensorrt", "picamera2", "torch")


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, fer_agent.cli; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("package", "foreign"),
    [
        ("agent/fer_agent", {"fer_trainer", "fer_provisioning"}),
        ("provisioning/fer_provisioning", {"fer_trainer"}),
    ],
)
def test_packages_import_only_downwards(root: Path, package: str, foreign: set[str]) -> None:
    files = sorted((root / package).rglob("*.py"))
    assert files
    wrong = {f"{path.name}: {name}" for path in files for name in _imports(path) & foreign}
    assert not wrong


def test_the_networks_libraries_of_the_trainer_stay_out_of_the_agent(root: Path) -> None:
    trainers = {
        "torch",
        "torchvision",
        "lightning_fabric",
        "onnx",
        "sklearn",
        "skimage",
        "matplotlib",
    }
    for path in (root / "agent" / "fer_agent").rglob("*.py"):
        assert _imports(path).isdisjoint(trainers), path.name


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names
