from __future__ import annotations

import io
import itertools
import re
import sys
import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console

from fer_agent.watch import screen as live_screen

if TYPE_CHECKING:
    import pytest

FRAMES, WRITERS = 40, 4


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and knows what one shows."""

    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """Return what stands there after all that was written; understands what rich writes."""
        rows, y = [""], 0
        for token in re.findall(r"\x1b\[[?\d]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if token == "\n":
                y += 1
                rows += [""] * (y + 1 - len(rows))
            elif token.endswith("A") and token.startswith("\x1b["):
                y = max(0, y - int(token[2:-1] or 1))
            elif token == "\x1b[2K":
                rows[y] = ""
            elif not token.startswith(("\x1b", "\r")):
                rows[y] += token
        return [row.rstrip() for row in rows if row.strip()]


def test_lines_of_the_log_stand_above_a_growing_table_and_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, drawn, written = Terminal(), itertools.count(1), list[str]()
    grown = threading.Event()
    monkeypatch.setattr(sys, "stderr", terminal)
    # Private: at the real 8 frames a second the two threads would meet too rarely.
    monkeypatch.setattr(live_screen, "_FRAMES_PER_S", 200)

    def render() -> str:
        if (height := next(drawn)) == FRAMES:
            grown.set()
        return "\n".join(["the table"] + ["a row"] * height)

    def write(writer: int) -> None:
        while not grown.is_set():
            line = f"line {len(written)} of writer {writer}"
            written.append(line)
            sys.stderr.write(line + "\n")  # in one piece, as logging does
            time.sleep(0.001)

    console = Console(file=terminal, force_terminal=True, width=60, height=1000, color_system=None)
    with live_screen.live_screen(render, console):
        writers = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for each in writers:
            each.start()
        for each in writers:
            each.join()

    rows = terminal.rows()
    table = rows.index("the table")
    assert rows.count("the table") == 1
    assert sorted(rows[:table]) == sorted(written)
    assert set(rows[table + 1 :]) == {"a row"}


def test_a_log_that_was_redirected_stays_off_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    with live_screen.live_screen(lambda: "the table", Console(file=terminal, force_terminal=True)):
        sys.stderr.write("a line\n")

    assert file.getvalue() == "a line\n"
    assert terminal.rows() == ["the table"]


def test_what_is_written_before_and_after_goes_straight_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with live_screen.live_screen(lambda: "the table", Console(file=terminal, force_terminal=True)):
        above = sys.stderr
        above.write("above\n")
    above.write("after\n")

    assert sys.stderr is terminal
    assert terminal.rows() == ["above", "the table", "after"]
