"""Work that is killed at some instant, and what a starting agent finds in the store afterwards."""

from __future__ import annotations

import os
import signal
import time
import traceback
from typing import TYPE_CHECKING

from fer_agent.models.store import find_model
from fer_agent.updates.activation.pending import candidates, settle
from fer_agent.updates.activation.versions import verify

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def killed(work: Callable[[], object], *, after_s: float | None) -> bool:
    """Do work in a forked child, so that Python does not start each time.

    Args:
        work: what the child does; a fault of its own fails here.
        after_s: when the child is killed; None lets it end.

    Returns:
        Whether it was killed before its end.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001  process boundary
            traceback.print_exc()
        finally:
            os._exit(status)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    was_killed = os.WIFSIGNALED(status)
    assert was_killed or os.WEXITSTATUS(status) == 0, "the work ended by a fault of its own"
    return was_killed


def take_over(store: Path, name: str, *, good: bool) -> None:
    """Lock the version as a running agent does, and prove the version or send it back."""
    pending = settle(store, name)
    if pending is not None:
        if good:
            pending.confirm()
        else:
            pending.roll_back("bad luck")


def look(store: Path, name: str) -> str:
    """Start as an agent does; returns the version it would load, whole and verified."""
    pending = settle(store, name)
    if pending is not None:
        pending.end()
    assert (store / name).is_symlink(), "the model that was there is gone"
    model = next(iter(candidates(store, name)))
    # What the link names has to be whole by itself, without falling back to another version.
    assert model.folder == (store / name).resolve(), (model.folder, (store / name).resolve())
    verify(model.folder, name)
    found = find_model(name, store)
    assert found.manifest == model.manifest
    return found.manifest.version
