"""Reader of AffectNet with 7 or 8 classes, in both layouts that its authors published.

The reduced set has `train_set` and `val_set` with `images/<n>.jpg` and `annotations/<n>_exp.npy`;
the full set has `training.csv` and `validation.csv` with face boxes. Its validation images are 500
a class: 3,500 for 7 classes and 4,000 for 8. They are the test here, as everywhere in print; one
training image in twenty validates.

Source: Mollahosseini et al., AffectNet, arXiv:1708.03985.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_trainer.data.csv_rows import csv_rows
from fer_trainer.data.faceset import Split, UInt8Array
from fer_trainer.data.images import decode_resized
from fer_trainer.data.pictures import PictureFile, decode_pictures, held_out
from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_trainer.data.cache import Decoded

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""Meaning of the numbers 0 to 7; 8 to 10 are none, uncertain and no face, and are left out."""

_LAST_NUMBER = 10

OFFICIAL_TEST = {7: 3_500, 8: 4_000}


@dataclass(frozen=True, slots=True)
class _Box:
    left: int
    top: int
    width: int
    height: int


def load(path: Path, classes: int, *, check_counts: bool = True) -> tuple[Decoded, str]:
    """Read AffectNet.

    Args:
        path: the folder that holds `train_set` and `val_set`, or the two CSV files.
        classes: 7 leaves contempt out, 8 keeps it.
        check_counts: refuse another number of validation images than the official one.

    Raises:
        DataError: a label, the counts or a picture are wrong.
    """
    is_csv = (path / "training.csv").is_file()
    listed = list(_from_csv(path) if is_csv else _from_annotations(path))
    boxes = {str(picture.path): box for picture, box in listed if box is not None}
    pictures = [picture for picture, _ in listed if picture.label in CLASSES[:classes]]
    tests = sum(picture.split == Split.TEST for picture in pictures)
    if check_counts and tests != OFFICIAL_TEST[classes]:
        raise DataError(
            f"AffectNet has {OFFICIAL_TEST[classes]} validation images for {classes} classes, "
            f"this copy has {tests}",
            remedy="use a whole copy, or pass --any-counts when a part is meant",
        )

    def decode(encoded: bytes, name: str) -> UInt8Array:
        box = boxes.get(name)
        return decode_resized(encoded, name) if box is None else _cropped(encoded, name, box)

    return decode_pictures(f"affectnet-{classes}", pictures, decode)


def _cropped(encoded: bytes, name: str, box: _Box) -> UInt8Array:
    rows = slice(max(box.top, 0), max(box.top, 0) + box.height)
    columns = slice(max(box.left, 0), max(box.left, 0) + box.width)
    return decode_resized(encoded, name, (rows, columns))


def _from_annotations(path: Path) -> Iterator[tuple[PictureFile, None]]:
    for folder, official in (("train_set", Split.TRAIN), ("val_set", Split.TEST)):
        annotations = path / folder / "annotations"
        if not annotations.is_dir():
            raise DataError(
                f"there is no {annotations}", remedy="give the folder of train_set and val_set"
            )
        for file in sorted(annotations.glob("*_exp.npy")):
            number = file.name.removesuffix("_exp.npy")
            label = _class(_read_label(file), str(file))
            name = f"{folder}/{number}.jpg"
            split = official or held_out(name, valid=0.05)
            if label:
                yield (
                    PictureFile(path / folder / "images" / f"{number}.jpg", name, label, split),
                    None,
                )


def _read_label(file: Path) -> str:
    try:
        return str(np.load(file, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no NumPy file: {error}", remedy="copy it again") from error


def _from_csv(path: Path) -> Iterator[tuple[PictureFile, _Box]]:
    roots = [path, *(d for d in sorted(path.iterdir()) if d.is_dir())]
    for table, official in (("training.csv", Split.TRAIN), ("validation.csv", Split.TEST)):
        for number, row in csv_rows(path / table):
            where = f"{table} row {number}"
            label = _class(row.get("expression", ""), where)
            name = row.get("subDirectory_filePath", "")
            try:
                box = _Box(*(int(row[f"face_{side}"]) for side in ("x", "y", "width", "height")))
            except (KeyError, ValueError) as error:
                raise DataError(
                    f"{where} has no face box", remedy="repair or remove the row"
                ) from error
            place = next((root / name for root in roots if (root / name).is_file()), path / name)
            if label:
                yield PictureFile(place, name, label, official or held_out(name, valid=0.05)), box


def _class(number: str, where: str) -> str:
    """Give the class, or an empty word for the three kinds of no expression."""
    if not number.isdecimal() or int(number) > _LAST_NUMBER:
        raise DataError(
            f"{where} has the label {number!r}, out of 0 to {_LAST_NUMBER}",
            remedy="repair or remove it",
        )
    return CLASSES[int(number)] if int(number) < len(CLASSES) else ""
