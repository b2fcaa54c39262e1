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
import multiprocessing
import os
import queue
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

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "cv2", "onnxruntime", "paho.mqtt.client", "pydantic"])

ROOT = Path(__file__).resolve().parent.parent
_MARKS = "not (hardware or exhaustive or slow)"
_NAMES = "not (two_people or real_clips or a_real_face or dim_room or remembered_until)"
"""All but tests of seconds, which each survivor would go through."""

_CHANGE, _SESSION = "updates/activation/test_change", "mqtt/test_session"
_MEASURED = "updates/activation/test_measured"
_WATCH, _PUBLISHER = "updates/activation/test_watch", "mqtt/test_publisher"
TESTS = {
    "vision/tracker": ["vision/test_tracker"],
    "vision/smoother": ["vision/test_smoother"],
    "vision/classifier": ["vision/test_classifier"],
    "vision/crop": ["vision/test_crop"],
    "vision/motion_gate": ["vision/test_motion_gate"],
    "vision/pipeline": ["vision/test_pipeline"],
    "vision/assignment": ["vision/test_assignment"],
    "vision/pacing": ["vision/test_pacing"],
    "vision/records": ["vision/test_records", "vision/test_smoother"],
    "vision/recorder": ["vision/test_pipeline"],
    "vision/timing": ["vision/test_pipeline"],
    "camera/mailbox": ["camera/test_mailbox"],
    "camera/capture": ["camera/test_threaded"],
    "camera/threaded": ["camera/test_threaded"],
    "camera/frozen": ["camera/test_threaded"],
    "detector/letterbox": ["detector/test_letterbox"],
    "detector/yunet_decode": ["detector/test_yunet_decode"],
    "mqtt/messages": ["mqtt/test_messages"],
    "mqtt/outbox": ["mqtt/test_outbox"],
    "mqtt/send_queue": [_PUBLISHER, _SESSION],
    "mqtt/retained": [_PUBLISHER, _SESSION],
    "mqtt/session": [_SESSION],
    "updates/activation/journal": [_CHANGE, _WATCH],
    "updates/activation/pending": [_CHANGE, _WATCH],
    "updates/activation/health_check": [_WATCH],
    "updates/activation/swap": [_WATCH],
    "updates/activation/versions": [_CHANGE, _WATCH, _MEASURED, "updates/test_news"],
    "updates/activation/state": [_CHANGE, _WATCH],
}
"""The modules, most important first, and the tests of `tests/agent` that each has."""

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_OUTCOMES = ("killed", "timed out", "survived")
_LEFT_OUT = ("annotation", "returns", "decorator_list", "type_params")


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
            line = getattr(node, "lineno", 0)
            found.append(Mutant(line, change, ast.unparse(ast.fix_missing_locations(tree))))
            _put(parent, field, index, node)
    return found


def _places(parent: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Return the nodes that may be changed, each with its parent and its place there."""
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
    match node:
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                if type(operator) in _OPERATORS:
                    new = copy.deepcopy(node)
                    _put(new, "ops", index, _OPERATORS[type(operator)]())
                    yield new
        case ast.BinOp(op=operator) | ast.BoolOp(op=operator) if type(operator) in _OPERATORS:
            new_one = copy.copy(node)
            _put(new_one, "op", None, _OPERATORS[type(operator)]())
            yield new_one
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield ast.Return(ast.Constant(None))
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.AugAssign() | ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call() as test):
            new_if = copy.copy(node)
            new_if.test = ast.UnaryOp(ast.Not(), test)
            yield new_if


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _brief(node: ast.AST) -> str:
    return ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]


def _path(root: Path, module: str) -> Path:
    return root / "agent" / "fer_agent" / f"{module}.py"


class Copies:
    """Copies of the code, one for each worker. All else is linked to the checkout."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: queue.Queue[Path] = queue.Queue()
        for number in range(count):
            root = folder / str(number)
            shutil.copytree(ROOT / "agent", root / "agent")
            compileall.compile_dir(root / "agent", quiet=1)
            for name in ("models", "schemas", "systemd", "constraints"):
                (root / name).symlink_to(ROOT / name)
            self._free.put(root)

    def run(self, module: str, text: str | None, limit_s: float) -> tuple[str, float]:
        """Run the tests of a module, with another text in its place, and return how it went."""
        root = self._free.get()
        path = _path(root, module)
        original = path.read_bytes()
        try:
            if text is not None:
                path.write_text(text, "utf-8")
            return _test(root, module, limit_s)
        finally:
            path.write_bytes(original)
            self._free.put(root)


def _test(root: Path, module: str, limit_s: float) -> tuple[str, float]:
    started = time.monotonic()
    process = _PROCESSES.Process(target=_run_pytest, args=(root, TESTS[module]))
    process.start()
    process.join(limit_s)
    outcome = "timed out" if process.is_alive() else "killed" if process.exitcode else "survived"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    return outcome, time.monotonic() - started


def _run_pytest(root: Path, names: list[str]) -> NoReturn:
    os.setsid()
    os.chdir(ROOT)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = [str(root / "agent"), str(ROOT / "provisioning")]
    sys.path[:0] = code
    # Two mutants may have the same size and second, by which Python tells old bytecode.
    sys.dont_write_bytecode = True
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(code),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    tests = [f"tests/agent/{name}.py" for name in names]
    options = ["-xq", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
    sys.exit(pytest.main([*options, "-m", _MARKS, "-k", _NAMES, *tests]))


def _report(
    copies: Copies, module: str, mutants: list[Mutant], usual_s: float, workers: int
) -> None:
    """Test the mutants of a module, and print a line about them and one for each that survived."""
    started = time.monotonic()
    limit_s = 4 * usual_s + 20
    with ThreadPoolExecutor(workers) as pool:
        runs = pool.map(lambda mutant: copies.run(module, mutant.text, limit_s), mutants)
        outcomes = [outcome for outcome, _ in runs]
    counts = [outcomes.count(word) for word in _OUTCOMES]
    took_s = time.monotonic() - started
    print(f"{module:30} {len(mutants):7} {counts[0]:6} {counts[1]:9} {counts[2]:8} {took_s:6.0f}")
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        if outcome != "killed":
            print(f"  {outcome}: {_path(Path(), module)}:{mutant.line}: {mutant.change}")
    sys.stdout.flush()


def main() -> int:
    """Test the modules one after the other, and print what survived."""
    parser = argparse.ArgumentParser(description="Mutation testing of the agent's core.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="as in vision/tracker")
    parser.add_argument("--mutants", type=int, default=12, help="most mutants of a module")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    broken = False
    print(f"{'module':30} mutants killed timed-out survived      s", flush=True)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies = Copies(Path(folder), options.workers)
        for module in options.modules or TESTS:
            outcome, usual_s = copies.run(module, None, limit_s=600)
            if outcome != "survived":
                print(f"{module}: its tests fail without a change", flush=True)
                broken = True
                continue
            everything = mutants_of(module)
            chooser = random.Random(f"{options.seed} {module}")  # noqa: S311 - a sample, no secret
            chooser.shuffle(everything)  # so that a larger number contains the smaller one's
            _report(copies, module, everything[: options.mutants], usual_s, options.workers)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
