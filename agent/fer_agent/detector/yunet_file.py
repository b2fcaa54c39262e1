"""Where YuNet's file is: in the config, in the store, or downloaded once and verified."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fer_agent.errors import DownloadError, ModelFileError
from fer_agent.model_store import verify_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.config import DetectorConfig

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 14


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """A file on the web that can only be this one.

    Attributes:
        url: http or https address.
        sha256: 64 hexadecimal digits.
        size_bytes: its exact size; a longer answer is cut off and refused.
        timeout_s: longest silence of the server.
        limit_s: longest time for the whole download.
    """

    url: str
    sha256: str
    size_bytes: int
    timeout_s: float = 15.0
    limit_s: float = 120.0

    @property
    def name(self) -> str:
        """The file's name in the store."""
        return self.url.rpartition("/")[2]


YUNET = PinnedFile(
    url="https://github.com/ShiqiYu/libfacedetection.train/raw/"
    "0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/yunet_s_dynamic.onnx",
    sha256="daede24002cc8590f457998cc5e6c9e8b82f45f6bd969506a8913cd4ed10a2d3",
    size_bytes=237_823,
)
"""The dynamic graph of YuNet by its authors, Apache-2.0."""


def locate(
    config: DetectorConfig,
    store: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    source: PinnedFile = YUNET,
) -> Path:
    """Return the path of YuNet's file, downloading it into the store when it is not there.

    Args:
        config: `model_file` is taken as it is, whatever file it names.
        store: the model store's folder; the file lies in its `detectors/`.
        progress: called with the bytes received so far and the whole size.
        source: what to download.

    Raises:
        ModelFileError: `detector.model_file` is set and there is no such file.
        DownloadError: offline, refused, too slow, not the pinned file, the store cannot be
            written, or a download is needed and the config forbids it.
    """
    if config.model_file is not None:
        if not config.model_file.is_file():
            raise ModelFileError(
                f"no face detector at {config.model_file}",
                remedy="correct `detector.model_file`, or leave it out to have YuNet fetched",
            )
        return config.model_file
    path = store / "detectors" / source.name
    if path.exists():
        try:
            verify_file(path, sha256=source.sha256, size_bytes=source.size_bytes)
        except ModelFileError as error:
            logger.warning("%s; it is fetched again", error)
        else:
            return path
    if not config.download:
        raise DownloadError(
            f"no face detector at {path}, and `detector.download` is false",
            remedy=f"put {source.name} there, or set `detector.model_file` or `detector.download`",
        )
    download(source, path, progress=progress)
    return path


def download(
    source: PinnedFile, path: Path, *, progress: Callable[[int, int], None] | None = None
) -> None:
    """Fetch a pinned file; it appears under its name only whole and verified.

    Proxies are those of the environment (`https_proxy`, `no_proxy`).

    Raises:
        DownloadError: as in `locate`; nothing is left behind.
    """
    logger.info("downloading %s", source.url)
    try:
        content = _receive(source, progress)
    except urllib.error.HTTPError as error:
        error.close()
        raise _failed(source, f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise _failed(source, reason) from error
    try:
        _write(path, content)
    except OSError as error:
        raise DownloadError(
            f"cannot write {path}: {error.strerror or error}",
            remedy="make the model store writable, or set `models.path` to a folder that is",
        ) from error
    logger.info("saved %s", path)


def _receive(source: PinnedFile, progress: Callable[[int, int], None] | None) -> bytes:
    """Return the file's bytes, verified; it is small enough to wait in memory."""
    deadline = time.monotonic() + source.limit_s
    content = bytearray()
    # An opener of our own reads the proxies now; urlopen keeps those of its first call.
    opener = urllib.request.build_opener()
    with opener.open(source.url, timeout=source.timeout_s) as answer:
        while chunk := answer.read1(_CHUNK_BYTES):
            content += chunk
            if len(content) > source.size_bytes:
                raise _failed(source, f"the answer is longer than {source.size_bytes} bytes")
            if time.monotonic() > deadline:
                raise _failed(source, f"only {len(content)} bytes came in {source.limit_s:g} s")
            if progress is not None:
                progress(len(content), source.size_bytes)
    if len(content) < source.size_bytes:
        raise _failed(source, f"the answer ended after {len(content)} of {source.size_bytes} bytes")
    have = hashlib.sha256(content).hexdigest()
    if have != source.sha256:
        raise _failed(source, f"the file has sha256 {have[:12]}…, not the pinned one")
    return bytes(content)


def _write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, a power cut included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".part-")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _failed(source: PinnedFile, reason: str) -> DownloadError:
    return DownloadError(
        f"cannot download {source.url}: {reason}",
        remedy=f"check the connection, or put {source.name} into the store's detectors/ by hand",
    )
