"""The TensorRT API that the agent calls, and its stand-in plays, is the published one.

NVIDIA's bindings do not import without its libraries, but their names stand in the file: that is
what can be checked on any machine.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = "tensorrt-cu13-bindings"
VERSION = "11.4.0.106"
OLDER = {"FP16", "EXPLICIT_BATCH"}
"""Names of versions before 11, which the agent asks those versions alone for."""

SOURCES = ("tensorrt.py", "engine_build.py")
CALLED_ON = {"trt", "builder", "network", "parser", "config", "profile", "kinds"} | {
    "engine", "_engine", "_context", "_runtime", "runtime", "context",
}  # fmt: skip
"""Names in our sources that hold what TensorRT made."""


@pytest.fixture(scope="module")
def is_published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bool]:
    """A function that tells whether a name is in the published bindings."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fer-agent-tests"
    wheel = cache / f"{PACKAGE}-{VERSION}.whl"
    if not wheel.is_file():
        folder = tmp_path_factory.mktemp("bindings")
        platform = ["--python-version", "311", "--platform", "manylinux_2_28_x86_64"]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-input", "--no-deps"]
        done = subprocess.run(
            [*pip, "--only-binary=:all:", *platform, "--dest", folder, f"{PACKAGE}=={VERSION}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"pip cannot fetch {PACKAGE}: {done.stderr.strip()[-300:]}")
        cache.mkdir(parents=True, exist_ok=True)
        (fetched,) = folder.glob("*.whl")
        part = wheel.with_suffix(f".{os.getpid()}")
        part.write_bytes(fetched.read_bytes())
        part.rename(wheel)
    with zipfile.ZipFile(wheel) as archive:
        code = archive.read("tensorrt_bindings/tensorrt.so")
        python = archive.read("tensorrt_bindings/__init__.py").decode()

    def is_there(name: str) -> bool:
        # A string that another one ends with has no beginning of its own in the file.
        return f"{name}\0".encode() in code or bool(re.search(rf"\b{name}\b", python))

    return is_there


def called(path: Path) -> Iterator[str]:
    """Yield the attributes that a source asks of TensorRT's objects."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and not node.attr.startswith("_"):
            holder = node.value
            of_module = isinstance(holder, ast.Attribute) and _root(holder) == "trt"
            if of_module or _last(holder) in CALLED_ON:
                yield node.attr


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


OURS = {"release", "run", "run_into", "most", "least", "shape", "input", "outputs", "read_bytes"}
"""Attributes of our own objects that go by one of those names."""


def test_every_name_that_the_agent_calls_is_published(
    is_published: Callable[[str], bool], root: Path
) -> None:
    folder = root / "agent" / "fer_agent" / "inference"
    names = {name for source in SOURCES for name in called(folder / source)} - OURS
    assert {"execute_async_v3", "set_input_shape", "build_serialized_network"} <= names
    assert len(names) > 30
    assert {name for name in names if not is_published(name)} <= OLDER
    assert not is_published("executeAsyncV9")


def test_every_name_of_the_stand_in_is_published(
    is_published: Callable[[str], bool], root: Path
) -> None:
    tree = ast.parse((root / "tests/fakes/tensorrt/__init__.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            names.add(node.name)
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
                    names.add(part.name)
                    names |= {each.arg for each in part.args.args}
    assert len(names) > 50
    assert [name for name in names if not is_published(name)] == []
