"""Decoding of listed picture files through the cache, and their split by hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_trainer.data.cache import Decoded, cached, content_key
from fer_trainer.data.faceset import Split, UInt8Array
from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Decode = Callable[[bytes, str], UInt8Array]

ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")

_NAMED = 5
"""At most so many corrupt files are named in one message."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """One listed file.

    Attributes:
        path: where it is.
        name: unique within the data set.
        label: the source's class name.
        split: what it may be used for.
    """

    path: Path
    name: str
    label: str
    split: Split


def held_out(key: str, *, valid: float, test: float = 0.0) -> Split:
    """Assign a name, or a person, to a split by its hash, whatever else is in the set.

    Args:
        key: file name, or subject so that no person is in two splits.
        valid: share for validation.
        test: share for the test.
    """
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if place < test:
        return Split.TEST
    return Split.VALID if place < test + valid else Split.TRAIN


def decode_pictures(
    kind: str, pictures: Sequence[PictureFile], decode: Decode
) -> tuple[Decoded, str]:
    """Decode listed files, once.

    Args:
        kind: name of the source; part of the cache's key.
        pictures: what to read.
        decode: encoded bytes and a name to uint8 (48, 48).

    Raises:
        DataError: there is no picture, one is missing, or some are corrupt (named).
        StorageError: the cache cannot be written.
    """
    if not pictures:
        raise DataError(
            "there is no picture in the data", remedy="check the path and the kind of the data"
        )
    for picture in pictures:
        if not picture.path.is_file():
            raise DataError(
                f"the listed picture {picture.path} is not there",
                remedy="unpack the whole data set",
            )
    settings = [f"{p.name}\t{p.label}\t{p.split}" for p in pictures]
    key = content_key([picture.path for picture in pictures], kind, *settings)
    return cached(key, lambda: _decode_all(pictures, decode))


def _decode_all(pictures: Sequence[PictureFile], decode: Decode) -> Decoded:
    images, broken = [], []
    for picture in pictures:
        try:
            images.append(decode(picture.path.read_bytes(), str(picture.path)))
        except DataError as error:
            broken.append(error)
    if broken:
        named = "; ".join(str(error) for error in broken[:_NAMED])
        raise DataError(f"{len(broken)} bad pictures: {named}", remedy=broken[0].remedy)
    return Decoded(
        np.stack(images),
        tuple(picture.label for picture in pictures),
        np.array([picture.split for picture in pictures], np.uint8),
        tuple(picture.name for picture in pictures),
    )
