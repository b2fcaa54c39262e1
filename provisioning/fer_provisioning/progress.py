"""Writes a run's progress: a line for each board and step, and a table of all boards at the end."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fer_agent.errors import AgentError

_SLOW_S = 2.0


@dataclass(slots=True)
class StepReport:
    """The result of a step, filled in by the code that runs it."""

    changed: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run for one board.

    Attributes:
        name: the board's name.
        state: installed, upgraded, removed, unchanged, would change, or failed.
        board: model and system; empty when they were not found out.
        version: of the agent on it now; empty for none.
        changes: names of the steps that changed something, or would.
        error: the error that ended the run; None when all went well.
    """

    name: str
    state: str
    board: str
    version: str
    changes: tuple[str, ...]
    error: AgentError | None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome for `--json`."""
        return {
            "host": self.name,
            "state": self.state,
            "board": self.board,
            "version": self.version,
            "changes": list(self.changes),
            "error": None if self.error is None else str(self.error),
            "remedy": None if self.error is None else self.error.remedy,
        }


class Progress:
    """Writes a run's lines as they come.

    Args:
        write: takes one line.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write

    def say(self, text: str) -> None:
        """Write a line about the run as a whole."""
        self._write(text)

    @contextmanager
    def step(self, host: str, name: str, *, announce: bool) -> Iterator[StepReport]:
        """Report a step that changed something, and its start when `announce`d."""
        report, started_s = StepReport(), time.monotonic()
        if announce:
            self._write(f"{host}: {name} …")
        yield report
        took_s = time.monotonic() - started_s
        if report.changed:
            took = f" ({took_s:.0f} s)" if took_s > _SLOW_S else ""
            self._write(f"{host}: {name}: done{took}")

    def failed(self, host: str, error: AgentError) -> None:
        """Write the error that ended the run for one board, and its remedy."""
        self._write(f"{host}: {error}")
        self._write(f"{host}:   {error.remedy}")


def table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines)


def summary(outcomes: Sequence[Outcome]) -> str:
    """Lay the outcomes out as a table."""
    rows = [("HOST", "STATE", "VERSION", "CHANGES", "BOARD")]
    rows += [
        (one.name, one.state, one.version or "-", str(len(one.changes)), one.board or "-")
        for one in outcomes
    ]
    return table(rows)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return 0 when all went well, the failures' common code, or 1 when they differ."""
    codes = {one.error.exit_code for one in outcomes if one.error is not None}
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 else 1
