"""Cache of decoded data, memory-mapped arrays in a folder named by the source's content."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fer_trainer.data.faceset import SIZE_PX, UInt8Array
from fer_trainer.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

_FORMAT = 2
"""Rises when the meaning of the files changes; part of the key, so old folders are not read."""


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A source's images before labels are mapped; N images.

    Attributes:
        images: uint8 (N, 48, 48).
        label: the source's own class name of each image.
        split: uint8 (N,), values of `Split`.
        names: file name or row of each image.
    """

    images: UInt8Array
    label: tuple[str, ...]
    split: UInt8Array
    names: tuple[str, ...]

    def sha256(self) -> str:
        """Hash pixels, names, labels and splits; the same for every form of the same data."""
        order = sorted(range(len(self.names)), key=lambda i: (self.names[i], self.label[i]))
        digest = hashlib.sha256(np.ascontiguousarray(self.images[order]).tobytes())
        digest.update(self.split[order].tobytes())
        digest.update("\n".join(f"{self.names[i]}\t{self.label[i]}" for i in order).encode())
        return digest.hexdigest()


def folder() -> Path:
    """Return the cache's folder: `$FER_CACHE`, else `fer-agent/data` in the user's cache folder."""
    chosen = os.environ.get("FER_CACHE")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fer-agent" / "data"


def content_key(paths: Iterable[Path], *parts: str) -> str:
    """Hash files by what is in them, and the settings that change how they are decoded.

    Args:
        paths: the files, in a fixed order.
        parts: settings, e.g. the source's name.
    """
    digest = hashlib.sha256(f"{_FORMAT}\n{SIZE_PX}\n".encode())
    for part in parts:
        digest.update(part.encode() + b"\n")
    for path in paths:
        digest.update(path.name.encode() + b"\n")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def cached(key: str, decode: Callable[[], Decoded]) -> tuple[Decoded, str]:
    """Open a decoded source, decoding it first when it is not there.

    Args:
        key: from `content_key`.
        decode: reads the source; called at most once.

    Returns:
        The arrays, memory-mapped and read only, and the hash of their content.

    Raises:
        StorageError: the cache folder cannot be written.
        DataError: from `decode`.
    """
    target = folder() / key
    if not (target / "index.json").is_file():
        _write(target, decode())
    index = json.loads((target / "index.json").read_text())
    found = Decoded(
        images=np.load(target / "images.npy", mmap_mode="r"),
        label=tuple(index["label"]),
        split=np.load(target / "split.npy"),
        names=tuple(index["names"]),
    )
    return found, str(index["sha256"])


def _write(target: Path, decoded: Decoded) -> None:
    """Write beside the target, then rename: a killed run leaves no half cache."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=target.parent))
    except OSError as error:
        raise StorageError(
            f"the cache folder {target.parent} cannot be written: {error}",
            remedy="set FER_CACHE to a folder you can write",
        ) from error
    try:
        np.save(partial / "images.npy", decoded.images)
        np.save(partial / "split.npy", decoded.split)
        index = {"label": decoded.label, "names": decoded.names, "sha256": decoded.sha256()}
        (partial / "index.json").write_text(json.dumps(index))
        if target.exists():  # a folder without index.json: an older, broken attempt
            shutil.rmtree(target)
        partial.replace(target)
    except OSError as error:
        if (target / "index.json").is_file():  # another process was faster
            return
        raise StorageError(
            f"decoded data cannot be saved in {target}: {error}",
            remedy="free some space, or set FER_CACHE to another disk",
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.info("decoded %d images into %s", len(decoded.names), target)
