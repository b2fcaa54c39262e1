"""The live table on the terminal, with the log's lines above it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from threading import RLock
from typing import IO, cast

from rich.console import Console, RenderableType
from rich.file_proxy import FileProxy
from rich.live import Live

_FRAMES_PER_S = 8


@contextmanager
def live_screen(
    render: Callable[[], RenderableType], console: Console | None = None
) -> Iterator[None]:
    """Draw the result of `render` again and again, and once more at the end.

    Lines written to stderr meanwhile appear above it; a redirected stderr is left alone.

    Args:
        render: called from a separate thread.
        console: the terminal; by default the one on stdout.
    """
    screen = _Screen(
        console=console,
        get_renderable=render,
        refresh_per_second=_FRAMES_PER_S,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    if not sys.stderr.isatty():
        with screen:
            yield
        return
    with redirect_stderr(cast("IO[str]", _Above(screen, sys.stderr))), screen:
        yield


class _Screen(Live):
    """A `Live` with access to its lock."""

    @property
    def drawing(self) -> RLock:
        """The lock held while a frame is drawn."""
        return self._lock


class _Above(FileProxy):
    """A file that writes above a running screen, and directly to stderr before and after.

    rich's own redirection draws in the thread that writes, beside the one that refreshes: both
    then erase the same old frame, and one of the two new ones stays on the screen.
    """

    def __init__(self, screen: _Screen, file: IO[str]) -> None:
        super().__init__(screen.console, file)
        self._screen = screen

    def write(self, text: str) -> int:
        with self._screen.drawing:
            if self._screen.is_started:
                return super().write(text)
            return self.rich_proxied_file.write(text)

    def flush(self) -> None:
        with self._screen.drawing:
            if self._screen.is_started:
                super().flush()
            else:
                self.rich_proxied_file.flush()
