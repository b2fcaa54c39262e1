"""The terminal of all commands: JSON, live views, progress bars, Ctrl-C."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fer_agent.watch.listener import Arrival


def print_json(content: dict[str, Any]) -> None:
    """Print one line of JSON with the version of its schema."""
    typer.echo(json.dumps({"schema_version": 1, **content}))


@contextmanager
def live_view(
    title: str, *, as_json: bool, events_only: bool = False
) -> Iterator[Callable[[Arrival], None]]:
    """Yield a function that shows each arrival: as a JSON line, a live table, or a plain line.

    With `events_only` JSON leaves out all but events.
    """
    from fer_agent.watch.listener import ReceivedMessage
    from fer_agent.watch.table import LiveTable

    table = LiveTable(title)

    def print_json(arrived: Arrival) -> None:
        if isinstance(arrived, ReceivedMessage) and (arrived.event() or not events_only):
            typer.echo(arrived.as_json())

    def print_line(arrived: Arrival) -> None:
        if line := table.take(arrived):
            typer.echo(line)

    if as_json:
        yield print_json
    elif not sys.stdout.isatty():
        yield print_line
    else:
        from fer_agent.watch.screen import live_screen

        def draw(arrived: Arrival) -> None:
            table.take(arrived)

        with live_screen(table.render):
            yield draw


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on Ctrl-C and SIGTERM; a second signal ends the process at once."""

    def on_signal(number: int, _frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of bytes done and bytes in all, which draws a bar on stderr."""
    bar: Any = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = typer.progressbar(length=total, label=label, file=sys.stderr)
            bar.__enter__()
        bar.update(done - bar.pos)

    try:
        yield show
    finally:
        if bar is not None:
            bar.__exit__(None, None, None)
