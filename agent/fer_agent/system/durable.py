"""Atomic and durable changes of files and links, also in a power cut, and locks.

Source of the rules: a rename replaces its target atomically (rename(2)), but neither a file's
content nor its name is on the disk before `fsync` of the file and of its folder (fsync(2)).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fer_agent.errors import AgentError, ConfigError, TemporaryError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PARTIAL = ".part-"


def write(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write or replace a file; after a power cut it holds the old or the new content.

    A path may have one writer at a time; several need a lock (`locked`).

    Args:
        path: the file; its folder is made when missing.
        content: its whole content.
        mode: its permissions.

    Raises:
        OSError: it cannot be written; the old content stays, nothing else is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that no number of power cuts leaves more than one behind.
    partial = path.parent / f"{_PARTIAL}{path.name}"
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def point(link: Path, target: str | None) -> None:
    """Set a symbolic link's target atomically, or remove the link for None.

    Raises:
        OSError: the link cannot be made, or something else than a link is in its place.
    """
    if target is None:
        link.unlink(missing_ok=True)
    else:
        fresh = link.parent / f"{_PARTIAL}{link.name}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk.

    Raises:
        OSError: the folder is missing, or the disk has a fault.
    """
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_tree(folder: Path) -> None:
    """Put a folder's plain files, and then their names, on the disk; it has no folders in it.

    Raises:
        OSError: as in `sync_folder`.
    """
    for path in folder.iterdir():
        _sync(path, os.O_RDONLY)
    sync_folder(folder)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock between processes and threads; the kernel frees it when its holder dies.

    Args:
        path: the lock's file, made when missing and never removed.
        wait: whether to wait for another holder to end.

    Yields:
        Whether the lock is held; always true with `wait`.

    Raises:
        OSError: the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def refused(error: OSError, folder: Path) -> AgentError:
    """Return the error for a write that failed, a temporary one for a full disk.

    Args:
        error: the system's error.
        folder: the folder that people know, such as the model store.
    """
    if error.errno in _FULL:
        return TemporaryError(
            f"no room to write in {folder}: {error.strerror}",
            remedy="free some space on that disk and try again; what was there is untouched",
        )
    return ConfigError(
        f"cannot write in {folder}: {error.strerror or error}",
        remedy="run this as the user who owns the folder, or set `models.path` to another one",
    )


@contextlib.contextmanager
def one_at_a_time(lock: Path, folder: Path, work: str) -> Iterator[None]:
    """Hold a lock in the block, or fail at once when another process holds it.

    Args:
        lock: the lock's file.
        folder: the folder that people know, such as the model store.
        work: names the other holder's work in the message, such as "another sync".

    Raises:
        TemporaryError: another process holds the lock, or the disk is full.
        ConfigError: the folder cannot be written, in the block too.
    """
    try:
        with locked(lock, wait=False) as held:
            if not held:
                raise TemporaryError(
                    f"{work} is under way in {folder}",
                    remedy="wait until it has ended, and try again",
                )
            yield
    except OSError as error:
        raise refused(error, folder) from error
