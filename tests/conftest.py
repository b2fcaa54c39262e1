"""What all tests share: the data beside the checkout, programs of the system, and CI's strictness.

A test that lacks something of its surroundings skips with a reason; where `CI` is set that is a
failure, because nobody reads there what was left out.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

ROOT = Path(__file__).resolve().parent.parent
HARDWARE_COMMAND = "make test-hardware"
DESELECTED = pytest.StashKey[int]()


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
        pytest.skip(f"no shared data at {folder}; name its folder in FER_SHARED")
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
    hardware = [item for item in items if item.get_closest_marker("hardware")]
    config.stash[DESELECTED] = len(hardware)
    if hardware:
        config.hook.pytest_deselected(items=hardware)
        items[:] = [item for item in items if item not in hardware]


def pytest_report_collectionfinish(config: pytest.Config) -> str:
    count = config.stash.get(DESELECTED, 0)
    return f"{count} tests need hardware; run them with `{HARDWARE_COMMAND}`" if count else ""


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
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {reason}"
