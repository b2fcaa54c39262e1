"""The memory figures of this process, and the trimming of its heap."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from pathlib import Path


def trim_heap() -> None:
    """Return freed memory to the system, and exclude the objects so far from collections.

    Loading a network takes twice its size for a moment, and glibc keeps that: 4 MB of 57. Each
    full collection would walk through 54,000 objects of libraries, which live as long as the
    process does, for 30 ms on one x86-64 core and much longer on a small board's.
    """
    gc.freeze()
    # Other C libraries have no such function, and return memory by themselves.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def figures() -> dict[str, int | None]:
    """Return this process's memory in bytes; None where unknown.

    resident: all pages in memory, shared ones included. private_dirty: private pages that were
    written. unique: private pages, written or not (the unique set size). peak_resident: the
    largest `resident` so far.
    """
    rollup: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        fields = (line.partition(":") for line in lines)
        rollup = {name: int(rest.split()[0]) * 1024 for name, _, rest in fields}
    clean, dirty = rollup.get("Private_Clean"), rollup.get("Private_Dirty")
    return {
        "resident": rollup.get("Rss"),
        "private_dirty": dirty,
        "unique": None if clean is None or dirty is None else clean + dirty,
        "peak_resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
