"""Fixtures and rules that all tests share.

A test that lacks something of its surroundings skips with a reason. Where `CI` is set a skip is a
failure, because nobody reads a log that is green. A skip for want of the shared data is none: only
its owners have it.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"hardware": "make test-hardware", "exhaustive": "make test-all"}
"""Marks of tests that run only when asked for, and the command that asks for them."""

NO_DATA = "no shared data at"
REMARKS = pytest.StashKey[list[str]]()
"""Lines for the end of the output; the workers of pytest-xdist send theirs to the controller."""


def _shared_folder() -> Path:
    return Path(os.environ.get("FER_SHARED") or ROOT.parent / "shared")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data sets and media that stays outside the repository."""
    folder = _shared_folder()
    if not folder.is_dir():
        pytest.skip(f"{NO_DATA} {folder}; name its folder in FER_SHARED")
    return folder


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], Path]:
    """A function that finds a program of the system by name, or skips."""

    def find(name: str) -> Path:
        # Debian keeps daemons in /usr/sbin, which is not on every user's PATH.
        found = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
        if found is None:
            pytest.skip(f"no program {name}; scripts/install-debian-packages brings it")
        return Path(found)

    return find


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command run in this process has set up for its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("markexpr"):
        return
    for mark, command in LEFT_OUT.items():
        left_out = [item for item in items if item.get_closest_marker(mark)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]
            _remarks(config).append(f"{len(left_out)} {mark} tests left out: `{command}`")


def _remarks(config: pytest.Config) -> list[str]:
    return config.stash.setdefault(REMARKS, [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    remarks, name = _remarks(session.config), os.environ.get("PYTEST_XDIST_WORKER", "pytest")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    remarks.append(f"peak memory of {name}: {peak_mib} MiB")
    if hasattr(session.config, "workeroutput"):  # in a worker
        session.config.workeroutput["remarks"] = remarks


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    if not error:  # else it died, and sent nothing
        _remarks(node.config).extend(node.workeroutput["remarks"])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for remark in sorted(set(_remarks(config))):
        terminalreporter.write_line(remark)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not item.get_closest_marker("hardware") and not hasattr(report, "wasxfail"):
        _fail_if_skipped_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped_in_ci(report)
    return report


def _fail_if_skipped_in_ci(report: Any) -> None:
    if report.outcome == "skipped" and os.environ.get("CI"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if NO_DATA in reason:
            return
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {reason}"
