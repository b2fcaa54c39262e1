"""Downloaded content by its hash, complete or in part; model sync and the detector share it.

<folder>/<sha256>           whole; verified when it was put there
<folder>/<sha256>.part      the beginning of it; a later download goes on after it
<folder>/<sha256>.tag       the server's name for it
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from fer_agent.errors import ModelFileError, VerificationError
from fer_agent.models.store import file_sha256, verify_file
from fer_agent.system import durable
from fer_agent.updates.connection import TooLongError, shown
from fer_agent.updates.fetch import Fetcher, Tag

logger = logging.getLogger(__name__)

FOLDER: Final = ".cache"
"""Its name in the model store."""

_REMEDY: Final = "try again on another network; if it stays, tell whoever publishes it"
_SPARE_BYTES: Final = 4 << 20
"""Bytes of the disk that a download leaves free."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Content that is named by its hash.

    Attributes:
        url: its address.
        sha256: 64 hexadecimal digits.
        size_bytes: its exact size.
    """

    url: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.url.rpartition("/")[2]


class OtherContentError(VerificationError):
    """A server sent other content than the hash names."""


@dataclass(frozen=True, slots=True)
class ContentCache:
    """Content by hash, below one folder.

    Attributes:
        folder: made when missing.
        fetcher: downloads missing content.
    """

    folder: Path
    fetcher: Fetcher

    def get(
        self, wanted: Wanted, progress: Callable[[int, int], None] = lambda _done, _all: None
    ) -> Path:
        """Return the path of a verified file with the wanted content, fetched when it is missing.

        Args:
            wanted: the content.
            progress: called with the bytes that are there and the whole size.

        Raises:
            FetchError: it cannot be fetched; a part stays for the next time.
            OtherContentError: the server sends other content.
            TemporaryError: the disk is full.
            ConfigError: the folder cannot be written.
        """
        path = self.folder / wanted.sha256
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._part(wanted) as part:
                if not self._is_whole(wanted):
                    self._make_room(wanted, part)
                    self._fetch(wanted, part, progress)
        except OSError as error:
            raise durable.refused(error, self.folder) from error
        progress(wanted.size_bytes, wanted.size_bytes)
        return path

    def keep_only(self, hashes: Collection[str]) -> None:
        """Remove everything but the named content, parts of it included.

        Raises:
            OSError: the folder cannot be written.
        """
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            if path.name.partition(".")[0] not in hashes and re.match(r"[0-9a-f]{64}", path.name):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _part(self, wanted: Wanted) -> Iterator[IO[bytes]]:
        """Open the part and hold its lock; another process waits."""
        path = self.folder / f"{wanted.sha256}.part"
        while True:
            with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as part:
                fcntl.flock(part, fcntl.LOCK_EX)
                # The process before may have finished and renamed the part.
                try:
                    named = path.stat().st_ino == os.fstat(part.fileno()).st_ino
                except FileNotFoundError:
                    named = False
                if not named:
                    continue
                yield part
                if (self.folder / wanted.sha256).exists():
                    path.unlink(missing_ok=True)
                return

    def _is_whole(self, wanted: Wanted) -> bool:
        path = self.folder / wanted.sha256
        if not path.exists():
            return False
        try:
            verify_file(path, sha256=wanted.sha256, size_bytes=wanted.size_bytes)
        except ModelFileError as error:
            logger.warning("%s; it is fetched again", error)
            path.unlink()
            return False
        return True

    def _make_room(self, wanted: Wanted, part: IO[bytes]) -> None:
        needed = wanted.size_bytes - part.seek(0, os.SEEK_END) + _SPARE_BYTES
        if shutil.disk_usage(self.folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _fetch(self, wanted: Wanted, part: IO[bytes], progress: Callable[[int, int], None]) -> None:
        tag = Tag(self.folder / f"{wanted.sha256}.tag")
        path = self.folder / f"{wanted.sha256}.part"
        logger.info("downloading %s", shown(wanted.url))
        have = ""
        # Twice, because a part of other content, or a flipped bit on the way, spoils the first.
        for _ in range(2):
            self._complete(wanted, part, tag, progress)
            part.flush()
            os.fsync(part.fileno())
            have = file_sha256(path)
            if have == wanted.sha256:
                path.rename(self.folder / wanted.sha256)
                durable.sync_folder(self.folder)
                tag.forget()
                return
            part.truncate(0)
            tag.forget()
        raise OtherContentError(
            f"{shown(wanted.url)} has sha256 {have[:12]}…, not the expected {wanted.sha256[:12]}…",
            remedy=_REMEDY,
        )

    def _complete(
        self, wanted: Wanted, part: IO[bytes], tag: Tag, progress: Callable[[int, int], None]
    ) -> None:
        try:
            self.fetcher.save(
                wanted.url,
                part,
                wanted.size_bytes,
                tag=tag,
                progress=lambda done: progress(done, wanted.size_bytes),
            )
        except TooLongError as error:
            part.truncate(0)
            raise OtherContentError(str(error), remedy=_REMEDY) from error


def place(content: Path, path: Path) -> None:
    """Link content to a path, replacing a file there; copied where the disk has no links.

    Raises:
        AgentError: the folder cannot be written.
    """
    fresh = path.parent / f".part-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        try:
            os.link(content, fresh)
        except OSError:
            shutil.copyfile(content, fresh)
        fresh.chmod(0o644)
        fresh.replace(path)
        durable.sync_folder(path.parent)
    except OSError as error:
        raise durable.refused(error, path.parent) from error
