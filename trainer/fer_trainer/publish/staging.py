"""Staging area of a served folder, whose reader never meets half a publication.

New files are first made whole in `.publish/next`, on the same disk. A list of them, in the order
in which they appear, is the point of no return: before it exists a failed publication leaves
nothing, and once it exists the next publication finishes the renames that a crash cut short. The
order is content, then metadata, and `timestamp.json` last, which alone makes the rest visible.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fer_agent.errors import ModelFileError, TemporaryError
from fer_agent.system import durable
from fer_trainer.errors import StorageError
from fer_trainer.publish.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator


STAGING_FOLDER: Final = ".publish"
"""Folder inside the repository that only the publisher uses; nothing in it is secret."""

_NEXT = "next"
_ORDER = "order.json"
_LOCK = "lock"
_CHUNK_BYTES = 1 << 20


class StagingArea:
    """The folder where a publication is made ready.

    Args:
        folder: the repository's folder, locked by the caller.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._next = folder / STAGING_FOLDER / _NEXT
        self._order = folder / STAGING_FOLDER / _ORDER
        self._paths: list[str] = []

    def put(self, path: str, content: bytes) -> None:
        """Make a file ready; it appears after those made ready before it.

        Args:
            path: where it will be, relative to the repository's folder.
            content: everything in it.

        Raises:
            StorageError: the disk is full or refuses the file.
            RepositoryError: another file of that name is published.
        """
        place = self.folder / path
        if place.name != "timestamp.json" and place.exists():
            raise RepositoryError(
                f"{place} is there already, though no metadata names it",
                remedy="find out who wrote it; if nobody's device can have seen it, move it away",
            )
        with _storing(place):
            durable.write(self._make_folder(path) / place.name, content)
        self._paths.append(path)

    def copy(self, path: str, source: Path, *, sha256: str, size_bytes: int) -> None:
        """Make a copy of a file ready, unless that very file is published already.

        Args:
            path: as in `put`.
            source: the file to copy.
            sha256: what its content must hash to.
            size_bytes: its size.

        Raises:
            StorageError: the disk is full or refuses the file.
            ModelFileError: the source cannot be read, or is not what was signed.
        """
        place = self.folder / path
        if place.is_file() and place.stat().st_size == size_bytes:
            return
        with _storing(place):
            _copy(source, self._make_folder(path) / place.name, sha256=sha256)
        self._paths.append(path)

    def publish(self) -> None:
        """Let everything that is ready appear, in order.

        Raises:
            StorageError: the disk is full or refuses it; the next publication finishes this one.
        """
        with _storing(self._order):
            for folder, _, _ in os.walk(self._next, topdown=False):
                durable.sync_folder(Path(folder))
            durable.write(self._order, json.dumps(self._paths).encode())
        self.finish()

    def finish(self) -> bool:
        """Finish a publication that was cut short, or forget one that was not yet whole.

        Returns:
            True when there was one to finish.

        Raises:
            StorageError: the disk refuses it.
        """
        with _storing(self.folder):
            unfinished = self._order.exists()
            if unfinished:
                for path in json.loads(self._order.read_bytes()):
                    self._appear(path)
                self._order.unlink()
            if self._next.exists():
                shutil.rmtree(self._next)
        self._paths = []
        return unfinished

    def _appear(self, path: str) -> None:
        source, place = self._next / path, self.folder / path
        if not source.exists():  # it appeared before the crash
            return
        _make_public(place.parent, self.folder)
        source.replace(place)
        durable.sync_folder(place.parent)

    def _make_folder(self, path: str) -> Path:
        folder = (self._next / path).parent
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@contextmanager
def open_area(folder: Path) -> Iterator[StagingArea]:
    """Lock a repository's folder, finish what a crash cut short, and give its staging area.

    Files made ready and not published are deleted afterwards.

    Raises:
        TemporaryError: another process publishes there now.
        StorageError: the disk refuses it.
    """
    with _storing(folder):
        _make_public(folder, folder)
        lock = durable.locked(folder / STAGING_FOLDER / _LOCK, wait=False)
        held = lock.__enter__()
    try:
        if not held:
            raise TemporaryError(
                f"somebody else publishes into {folder} now", remedy="try again in a minute"
            )
        one = StagingArea(folder)
        one.finish()
        try:
            yield one
        finally:
            if not (folder / STAGING_FOLDER / _ORDER).exists():
                shutil.rmtree(folder / STAGING_FOLDER / _NEXT, ignore_errors=True)
    finally:
        lock.__exit__(None, None, None)


def is_unfinished(folder: Path) -> bool:
    """Return whether a publication was cut short there."""
    return (folder / STAGING_FOLDER / _ORDER).exists()


def _make_public(folder: Path, top: Path) -> None:
    """Make a folder and those above it up to `top`, for every web server to read."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        one.mkdir()
        if one == top or top in one.parents:
            one.chmod(0o755)


def _copy(source: Path, place: Path, *, sha256: str) -> None:
    digest = hashlib.sha256()
    try:
        reading = source.open("rb")
    except OSError as error:
        raise ModelFileError(
            f"cannot read {source}: {error.strerror}", remedy="bring the file back and try again"
        ) from error
    with reading, place.open("wb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
        writing.flush()
        os.fchmod(writing.fileno(), 0o644)
        os.fsync(writing.fileno())
    if digest.hexdigest() != sha256:
        raise ModelFileError(
            f"{source} has sha256 {digest.hexdigest()[:12]}…, {sha256[:12]}… is to be published",
            remedy="let nobody change the folder while it is published, and publish it again",
        )


@contextmanager
def _storing(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{place} could not be written: {error.strerror or error}",
            remedy="free some space, or name a folder that you can write; "
            "what is published stays whole",
        ) from error
