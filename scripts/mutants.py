"""Change the code in small ways, one at a time, and list the changes that no test notices.

    python scripts/mutants.py [--mutants 12] [--seed 1] [--workers 2] [MODULE ...]

A mutant is one module with one change. Each runs the tests of its module, in a copy of the code,
until the first failure. A test run that takes several times as long as usual counts as a failure.
The exit code is 1 if the tests fail without any change, and 0 otherwise.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import copy
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "vision": "tracker smoother classifier crop motion_gate pipeline assignment pacing records "
    "recorder timing",
    "camera": "mailbox capture threaded frozen",
    "detector": "letterbox yunet_decode",
    "mqtt": "messages outbox send_queue retained session",
    "updates/activation": "journal pending health_check swap versions state",
}
_SWITCH = ["updates/activation/test_change", "updates/activation/test_watch"]
_TESTS = {
    "vision/smoother": ["vision/test_smoother", "updates/activation/test_model_change"],
    "vision/recorder": ["vision/test_pipeline"],
    "vision/timing": ["vision/test_pipeline"],
    "camera/capture": ["camera/test_threaded"],
    "mqtt/send_queue": ["mqtt/test_outbox", "mqtt/test_publisher"],
    "updates/activation/journal": _SWITCH,
    "updates/activation/pending": _SWITCH,
    "updates/activation/health_check": _SWITCH[1:],
    "updates/activation/swap": _SWITCH[1:],
    "updates/activation/versions": [*_SWITCH, "updates/test_news"],
    "updates/activation/state": _SWITCH,
}
"""Tests of `tests/agent` for modules without a file of their own."""

_MARKS = "not (hardware or exhaustive or slow)"
_NAMES = "not (two_people or real_clips or a_real_face or dim_room or remembered_until)"
"""All but tests of seconds, which each survivor would go through."""

_SWAPS = "Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or, Add Sub, Mult Div, LShift RShift"
_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    getattr(ast, one): getattr(ast, other)
    for pair in _SWAPS.split(", ")
    for one, other in itertools.permutations(pair.split())
} | {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
_LEFT_OUT = ("annotation", "returns", "decorator_list", "type_params")
_OUTCOMES = ("killed", "timed out", "survived")
_PROCESSES = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Mutant:
    """A module's text with one change."""

    line: int
    change: str
    text: str


def mutants_of(module: str) -> list[Mutant]:
    """Return all mutants of a module."""
    tree = ast.parse(_path(ROOT, module).read_text("utf-8"))
    found = []
    for parent, field, index, node in _places(tree):
        for new in _replacements(node):
            _put(parent, field, index, new)
            change = f"{_brief(node)}  ->  {_brief(new)}"
            text = ast.unparse(ast.fix_missing_locations(tree))
            found.append(Mutant(getattr(node, "lineno", 0), change, text))
            _put(parent, field, index, node)
    return found


def _places(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Yield the nodes that may be changed, each with its parent and its place there."""
    for field, value in ast.iter_fields(parent):
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if field in _LEFT_OUT or not isinstance(node, ast.AST) or _is_text(node):
                continue
            yield parent, field, index, node
            if not isinstance(node, ast.Raise):  # the error's words
                yield from _places(node)


def _is_text(node: ast.AST) -> bool:
    """Tell whether a statement only logs, documents or serves the type checker."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logger")))):
            return True
    return False


def _replacements(node: ast.AST) -> Iterator[ast.AST]:  # noqa: C901 - a table of cases
    new = copy.deepcopy(node)
    match new:
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                if type(operator) in _OPERATORS:
                    changed = copy.deepcopy(node)
                    _put(changed, "ops", index, _OPERATORS[type(operator)]())
                    yield changed
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in _OPERATORS:
            _put(new, "op", None, _OPERATORS[type(operator)]())
            yield new
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1 if abs(value) < 1000 else 2 * value)
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call() as test):
            new.test = ast.UnaryOp(ast.Not(), test)
            yield new


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _brief(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]


def _path(root: Path, module: str) -> Path:
    return root / "agent" / "fer_agent" / f"{module}.py"


def run(module: str, text: str | None, limit_s: float) -> str:
    """Run the tests of a module with another text in its place, and return the outcome."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "agent", root / "agent")
        for name in ("models", "schemas", "systemd", "constraints"):
            (root / name).symlink_to(ROOT / name)
        if text is not None:
            _path(root, module).write_text(text, "utf-8")
        package, _, name = module.rpartition("/")
        tests = _TESTS.get(module, [f"{package}/test_{name}"])
        process = _PROCESSES.Process(target=_run_pytest, args=(root, tests))
        process.start()
        process.join(limit_s)
        outcome = (
            "timed out" if process.is_alive() else "killed" if process.exitcode else "survived"
        )
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return outcome


def _run_pytest(root: Path, tests: list[str]) -> NoReturn:
    os.setsid()
    os.chdir(ROOT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.path[:0] = [str(root / "agent"), str(ROOT / "provisioning")]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(sys.path[:2]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # saves half the time
    }
    options = ["-xq", "-p", "pytest_timeout", "-p", "no:cacheprovider", "-m", _MARKS, "-k", _NAMES]
    sys.exit(pytest.main([*options, *(f"tests/agent/{name}.py" for name in tests)]))


def report(module: str, mutants: list[Mutant], usual_s: float, workers: int) -> None:
    """Test the mutants of a module, and print a line about them and one for each that survived."""
    started_s = time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        runs = pool.map(lambda mutant: run(module, mutant.text, 4 * usual_s + 20), mutants)
        outcomes = list(runs)
    counts = [outcomes.count(word) for word in _OUTCOMES]
    took_s = time.monotonic() - started_s
    print(f"{module:32} {len(mutants):7} {counts[0]:6} {counts[1]:9} {counts[2]:8} {took_s:6.0f}")
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        if outcome != "killed":
            print(f"  {outcome}: {_path(Path(), module)}:{mutant.line}: {mutant.change}")
    sys.stdout.flush()


def main() -> int:
    """Test the modules one after the other, and print the survivors."""
    parser = argparse.ArgumentParser(description="Mutation testing of the agent's core.")
    every = [f"{package}/{name}" for package, names in PACKAGES.items() for name in names.split()]
    parser.add_argument("modules", nargs="*", metavar="MODULE", default=every)
    parser.add_argument("--mutants", type=int, default=12, help="most mutants of a module")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    compileall.compile_dir(ROOT / "agent", quiet=1)  # its bytecode is copied too
    _PROCESSES.set_forkserver_preload(["pytest", "cv2", "onnxruntime", "pydantic"])
    print(f"{'module':32} mutants killed timed-out survived      s", flush=True)
    broken = False
    for module in options.modules:
        started_s = time.monotonic()
        if run(module, None, limit_s=600) != "survived":
            print(f"{module}: its tests fail without a change", flush=True)
            broken = True
            continue
        usual_s = time.monotonic() - started_s
        mutants = mutants_of(module)
        # A larger number of mutants contains the smaller one's.
        random.Random(f"{options.seed} {module}").shuffle(mutants)  # noqa: S311 - no secret
        report(module, mutants[: options.mutants], usual_s, options.workers)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
