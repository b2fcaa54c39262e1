"""Reader of RAF-DB's basic emotions, aligned faces and `list_patition_label.txt` (its spelling).

Source: Li et al., Reliable Crowdsourcing and Deep Locality-Preserving Learning, CVPR 2017.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fer_trainer.data.faceset import Split
from fer_trainer.data.images import decode_resized
from fer_trainer.data.pictures import PictureFile, decode_pictures, held_out
from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from fer_trainer.data.cache import Decoded

LIST = "list_patition_label.txt"

CLASSES = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
"""Meaning of the numbers 1 to 7."""

OFFICIAL_COUNTS = {"train": 12_271, "test": 3_068}


def load(path: Path, *, check_counts: bool = True) -> tuple[Decoded, str]:
    """Read RAF-DB; one training picture in ten validates, by the hash of its name.

    Raises:
        DataError: the list, a label, the counts or a picture are wrong.
    """
    lists = sorted(path.rglob(LIST))
    if not lists:
        raise DataError(f"there is no {LIST} under {path}", remedy="give the folder `basic`")
    places = {f.name: f for f in sorted(path.rglob("*.jpg"))}
    pictures, counts = [], Counter[str]()
    for number, line in enumerate(lists[0].read_text(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        name, label = _row(line, number)
        official = name.split("_")[0]
        counts[official] += 1
        split = Split.TEST if official == "test" else held_out(name, valid=0.1)
        stem = name.removesuffix(".jpg")
        file = places.get(f"{stem}_aligned.jpg") or places.get(name)
        if file is None:
            raise DataError(f"the listed picture {name} is not there", remedy="unpack `aligned`")
        pictures.append(PictureFile(file, name, label, split))
    for official, count in OFFICIAL_COUNTS.items():
        if check_counts and counts[official] != count:
            raise DataError(
                f"RAF-DB has {count} pictures for {official}, this copy has {counts[official]}",
                remedy="use a whole copy, or pass --any-counts when a part is meant",
            )
    return decode_pictures("raf-db", pictures, decode_resized)


def _row(line: str, number: int) -> tuple[str, str]:
    name, _, label = line.strip().partition(" ")
    known = label.isdecimal() and 1 <= int(label) <= len(CLASSES)
    if not known or name.split("_")[0] not in OFFICIAL_COUNTS:
        raise DataError(
            f"{LIST} row {number} is {line!r}, not a train_ or test_ file and a label of 1 to 7",
            remedy="use the list as published",
        )
    return name, CLASSES[int(label) - 1]
