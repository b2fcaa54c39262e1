"""Writing of files whole or not at all, with errors for a disk that refuses one."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from fer_trainer.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its place, sync it, and move it there.

    Args:
        path: the file; an older one stays until the new one is on the disk.
        write: fills the open file.

    Raises:
        StorageError: the disk is full or refuses the file.
    """
    partial = path.with_name(path.name + ".partial")
    make_folder(path.parent)
    try:
        with partial.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    # torch.save reports a full disk as a RuntimeError of its zip writer
    except (OSError, RuntimeError) as error:
        raise StorageError(
            f"{path} could not be written: {_reason(error)}",
            remedy="free some space and run the command again; an older file there is still whole",
        ) from error
    finally:  # it is still there after a fault, or Ctrl-C
        with suppress(OSError):
            partial.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, whole or not at all.

    Raises:
        StorageError: the disk is full or refuses the file.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        StorageError: the disk is full or refuses the file.
    """
    write_whole(path, lambda file: file.write(content))


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file, UTF-8.

    Raises:
        StorageError: the disk is full or refuses the file.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise StorageError(
            f"{path} could not be written: {_reason(error)}",
            remedy="free some space and run the command again; it goes on from the last epoch",
        ) from error


def make_folder(path: Path) -> Path:
    """Make a folder and those above it; one that is there stays.

    Raises:
        StorageError: the disk refuses it, or a file is in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder {path} cannot be made: {_reason(error)}",
            remedy="name a folder that you can write",
        ) from error
    return path


def _reason(error: BaseException) -> str:
    """Return the reason in one line; torch's RuntimeError hides the system's error."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.strerror:
            return behind.strerror
        behind = behind.__context__
    return str(error).partition("\n")[0]
