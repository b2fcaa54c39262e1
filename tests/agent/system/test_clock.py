"""Whether the wall clock can be trusted, as the kernel says, or systemd-timesyncd."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from fer_agent.system import clock

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("kernel", "timesyncd", "synced"),
    [(0, False, True), (2, False, True), (5, True, False), (-1, True, True), (-1, False, None)],
    ids=["synchronised", "in a leap second", "not", "asked in a sandbox", "nobody tells"],
)
def test_the_kernel_is_asked_first(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kernel: int,
    timesyncd: bool,
    synced: bool | None,
) -> None:
    touched = tmp_path / "synchronized"
    if timesyncd:
        touched.touch()
    # Private: a test can neither set the machine's clock nor write below /run.
    monkeypatch.setattr(clock, "_TIMESYNCD", touched)
    libc = SimpleNamespace(adjtimex=lambda _buffer: kernel)
    monkeypatch.setattr(clock, "_libc", lambda: libc)
    assert clock.clock_synced() is synced
