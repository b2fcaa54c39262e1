"""Downloads from a web server: size limits, redirects, retries, and resuming."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, TypeVar
from urllib.parse import urljoin, urlsplit

from fer_agent.system.backoff import Backoff
from fer_agent.updates.connection import (
    Answer,
    FetchError,
    MinRate,
    ProxyAndTls,
    StatusError,
    TooLongError,
    get,
    shown,
)

Got = TypeVar("Got")

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S: Final = 60.0
"""Upper limit of a server's `Retry-After` as well."""

_REDIRECTS: Final = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The number of attempts of a request, and the pauses between them.

    Attributes:
        attempts: requests in all.
        first_wait_s: longest pause after the first failure; it doubles with each further one.
    """

    attempts: int = 4
    first_wait_s: float = 1.5


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Fetches from the web.

    Attributes:
        proxy_and_tls: proxy and certificates.
        min_rate: lower limit of the speed.
        retry: attempts and pauses.
        redirects: most redirections of one request; never from https to http.
    """

    proxy_and_tls: ProxyAndTls = field(default_factory=ProxyAndTls)
    min_rate: MinRate = field(default_factory=MinRate)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    redirects: int = 5

    def read(self, url: str, limit_bytes: int) -> bytes:
        """Return the content of an address.

        Raises:
            FetchError: unreachable, refused, too slow, too long, after all attempts.
        """

        def take(answer: Answer) -> bytes:
            return b"".join(_limited(answer, limit_bytes))

        return self._persist(url, lambda: self._follow(url, {}, take))

    def save(
        self,
        url: str,
        file: IO[bytes],
        size_bytes: int,
        *,
        tag: Tag,
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        """Complete a partly downloaded file.

        Args:
            url: address of its content.
            file: open for reading and writing; its bytes are taken for the beginning.
            size_bytes: its exact size in the end.
            tag: keeps the server's name for this content between calls.
            progress: called with the bytes that are there, the old ones included.

        Raises:
            FetchError: unreachable, refused, too slow, longer or shorter, after all attempts;
                the received bytes stay in the file.
            OSError: the file cannot be written.
        """

        def take(answer: Answer) -> None:
            have = _continues_at(answer, have_before := file.seek(0, 2))
            if have != have_before:
                file.seek(have)
                file.truncate()
            tag.write(answer)
            for chunk in _limited(answer, size_bytes - have):
                file.write(chunk)
                have += len(chunk)
                progress(have)
            if have < size_bytes:
                raise FetchError(
                    url, f"the answer ended at byte {have} of {size_bytes}", again=True
                )

        def attempt() -> None:
            have = file.seek(0, 2)
            if have > size_bytes:
                have = file.truncate(0)
            if have == size_bytes:
                return
            try:
                self._follow(url, _range(have, tag), take)
            except StatusError as error:
                if error.status != 416:
                    raise
                # The bytes here are not the beginning of the server's file.
                file.truncate(0)
                raise FetchError(url, "the server cannot go on at that byte", again=True) from error

        self._persist(url, attempt)

    def _persist(self, url: str, attempt: Callable[[], Got]) -> Got:
        """Repeat an attempt as the retry policy says, while the error may pass."""
        waits = Backoff(first_s=self.retry.first_wait_s, longest_s=_LONGEST_WAIT_S)
        for _ in range(self.retry.attempts - 1):
            try:
                return attempt()
            except FetchError as error:
                if not error.again:
                    raise
                logger.info("%s; trying again", error)
                time.sleep(min(max(waits.next_s(), error.wait_s), _LONGEST_WAIT_S))
        logger.debug("last attempt at %s", shown(url))
        return attempt()

    def _follow(self, url: str, headers: Mapping[str, str], take: Callable[[Answer], Got]) -> Got:
        """Send a request, follow its redirections, and take the answer in."""
        for _ in range(self.redirects + 1):
            with get(url, headers, self.proxy_and_tls, self.min_rate) as answer:
                if answer.status in _REDIRECTS:
                    url = _redirected(url, answer.header("Location"))
                    continue
                if answer.status not in (200, 206):
                    wait_s = answer.header("Retry-After")
                    seconds = float(wait_s) if wait_s.isdecimal() else 0.0
                    raise StatusError(url, answer.status, answer.reason, seconds)
                return take(answer)
        raise FetchError(url, f"more than {self.redirects} redirections", again=False)


class Tag:
    """A server's name for a partly received file, an ETag or a date, kept in a file beside it.

    It goes into `If-Range`, so that a server whose file has changed sends the new one whole
    (RFC 9110, section 13.1.5). A power cut may lose it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """Return the name; empty when there is none."""
        with suppress(OSError, UnicodeDecodeError):
            return self._path.read_text(encoding="ascii")
        return ""

    def write(self, answer: Answer) -> None:
        """Keep the name that an answer gives.

        Raises:
            OSError: the file cannot be written.
        """
        etag = answer.header("ETag")
        text = etag if etag.startswith('"') else answer.header("Last-Modified")
        self._path.write_text(text if text.isascii() else "", encoding="ascii")

    def forget(self) -> None:
        """Remove the name, as its part is gone."""
        self._path.unlink(missing_ok=True)


def _limited(answer: Answer, limit_bytes: int) -> Iterator[bytes]:
    if answer.size_bytes is not None and answer.size_bytes > limit_bytes:
        raise TooLongError(answer.url, limit_bytes)
    received = 0
    for chunk in answer.chunks():
        received += len(chunk)
        if received > limit_bytes:
            raise TooLongError(answer.url, limit_bytes)
        yield chunk


def _range(have_bytes: int, tag: Tag) -> dict[str, str]:
    if have_bytes == 0:
        return {}
    headers = {"Range": f"bytes={have_bytes}-"}
    # Without a name the hash shows in the end whether the part fitted.
    return headers | ({"If-Range": name} if (name := tag.read()) else {})


def _continues_at(answer: Answer, have_bytes: int) -> int:
    """Return the byte at which an answer begins."""
    if answer.status != 206:
        return 0
    found = re.match(r"bytes (\d+)-", answer.header("Content-Range"))
    if found is None or int(found[1]) != have_bytes:
        raise FetchError(answer.url, "the server goes on at another byte than asked", again=False)
    return have_bytes


def _redirected(url: str, location: str) -> str:
    try:
        target = urljoin(url, location)
        parts = urlsplit(target)
        _ = parts.port
    except ValueError as error:
        raise FetchError(url, "it redirects to an invalid address", again=False) from error
    if not location or parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError(url, f"it redirects to {shown(location)!r}", again=False)
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        raise FetchError(url, "it redirects from https to http", again=False)
    return target
