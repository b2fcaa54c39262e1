"""Reader of FER2013 as `fer2013.csv`, as class folders, and as an archive of those.

Source: Goodfellow et al., Challenges in representation learning, arXiv:1307.0414.
"""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from fer_trainer.data.cache import Decoded, cached, content_key
from fer_trainer.data.csv_rows import csv_rows
from fer_trainer.data.faceset import SIZE_PX, Split, UInt8Array
from fer_trainer.data.images import decode_exact
from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

OFFICIAL_COUNTS = {Split.TRAIN: 28_709, Split.VALID: 3_589, Split.TEST: 3_589}

CSV_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Meaning of the numbers 0 to 6 in the column `emotion`, from the challenge's data page."""

_PREFIXES = {
    "Training": Split.TRAIN,
    "PublicTest": Split.VALID,
    "PrivateTest": Split.TEST,
}


def load(path: Path, *, check_counts: bool = True) -> tuple[Decoded, str]:
    """Read FER2013 from a CSV file, a folder or a tar archive, through the cache.

    Args:
        path: the file or folder.
        check_counts: refuse other counts than the official ones.

    Returns:
        The decoded set and the hash of its content.

    Raises:
        DataError: counts, labels, sizes or the file itself are wrong.
        StorageError: the cache cannot be written.
    """
    files = sorted(path.rglob("*.jpg")) if path.is_dir() else [path]
    if not files:
        raise DataError(
            f"no .jpg file under {path}", remedy="give the folder that holds train/ and test/"
        )
    where = [str(f.relative_to(path)) for f in files] if path.is_dir() else []
    key = content_key(files, "fer2013", *where)
    decoded, sha256 = cached(key, lambda: _decode(path, files))
    if check_counts:
        _check_counts(decoded)
    return decoded, sha256


def _decode(path: Path, files: list[Path]) -> Decoded:
    if path.is_dir():
        return _from_pictures((str(f.relative_to(path)), f.read_bytes()) for f in files)
    if path.suffix == ".csv":
        return _from_csv(path)
    return _from_pictures(_archive_members(path))


def _archive_members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".jpg"):
                    stream = archive.extractfile(member)
                    if stream is not None:
                        yield member.name, stream.read()
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        reason = str(error).partition(":\n")[0]  # tarfile adds a line for each way it tried
        raise DataError(
            f"the archive {path} cannot be read to its end: {reason}",
            remedy="copy or download it again; it is truncated or no tar archive",
        ) from error


def _from_pictures(pictures: Iterator[tuple[str, bytes]]) -> Decoded:
    images, label, split, names = [], [], [], []
    for name, encoded in pictures:
        parts = PurePosixPath(name)
        prefix = parts.name.split("_")[0]
        if prefix not in _PREFIXES:
            raise DataError(
                f"{name} does not say its split",
                remedy="FER2013 files are called Training_, PublicTest_ or PrivateTest_<n>.jpg",
            )
        images.append(decode_exact(encoded, name))
        label.append(_known_class(parts.parent.name, name))
        split.append(_PREFIXES[prefix])
        names.append(parts.name)
    if not images:
        raise DataError("there is no image in the data", remedy="give FER2013 itself")
    return Decoded(np.stack(images), tuple(label), np.array(split, np.uint8), tuple(names))


def _known_class(name: str, where: str) -> str:
    if name not in CSV_CLASSES:
        raise DataError(
            f"{where} is of the unknown class {name!r}",
            remedy=f"FER2013 has {', '.join(CSV_CLASSES)}; other folders: source `folders`",
        )
    return name


def _from_csv(path: Path) -> Decoded:
    images, label, split, names = [], [], [], []
    for number, row in csv_rows(path):
        where = f"{path} row {number}"
        missing = {"emotion", "pixels", "Usage"} - row.keys()
        if missing:
            raise DataError(
                f"{path} lacks the column {', '.join(sorted(missing))}",
                remedy="give the challenge's fer2013.csv: emotion,pixels,Usage",
            )
        images.append(_pixels(row["pixels"], where))
        label.append(_csv_class(row["emotion"], where))
        if row["Usage"] not in _PREFIXES:
            raise DataError(
                f"{where} has the unknown usage {row['Usage']!r}",
                remedy=f"Usage is one of {', '.join(_PREFIXES)}",
            )
        split.append(_PREFIXES[row["Usage"]])
        names.append(f"row-{number}")
    if not images:
        raise DataError(f"{path} has no rows", remedy="give the challenge's fer2013.csv")
    return Decoded(np.stack(images), tuple(label), np.array(split, np.uint8), tuple(names))


def _pixels(text: str, where: str) -> UInt8Array:
    repair = "repair or remove the row"
    try:
        values = np.array(text.split(), dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{where} has pixels that are no numbers", remedy=repair) from error
    if len(values) != SIZE_PX * SIZE_PX:
        raise DataError(
            f"{where} has {len(values)} pixels, not {SIZE_PX}x{SIZE_PX} = {SIZE_PX * SIZE_PX}",
            remedy=repair,
        )
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where} has pixels outside 0 to 255", remedy=repair)
    return values.astype(np.uint8).reshape(SIZE_PX, SIZE_PX)


def _csv_class(text: str, where: str) -> str:
    if not text.isdecimal() or int(text) >= len(CSV_CLASSES):
        raise DataError(
            f"{where} has the label {text!r}, out of 0 to {len(CSV_CLASSES) - 1}",
            remedy="repair or remove the row",
        )
    return CSV_CLASSES[int(text)]


def _check_counts(decoded: Decoded) -> None:
    counts = Counter(Split(value) for value in decoded.split.tolist())
    for split, official in OFFICIAL_COUNTS.items():
        if counts[split] != official:
            raise DataError(
                f"FER2013 has {official} images for {split.name.lower()}, "
                f"this copy has {counts[split]}",
                remedy="use a whole copy, or pass --any-counts when a part is meant",
            )
