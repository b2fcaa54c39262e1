"""The process's own memory, once everything is loaded."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def settle() -> None:
    """Give back what loading has left behind, and let the collector pass over what stays.

    Loading a network takes twice its size for a moment, and glibc keeps that: 4 MB of 57. Each
    full collection would walk through 54,000 objects of libraries, which live as long as the
    process does, for 30 ms on one x86-64 core and much longer on a small board's.
    """
    gc.freeze()
    # Other C libraries have no such function, and give back by themselves.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
