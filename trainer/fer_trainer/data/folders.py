"""Reader of class folders, with or without split folders above them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_trainer.data.faceset import Split
from fer_trainer.data.images import decode_resized
from fer_trainer.data.pictures import ENDINGS, PictureFile, decode_pictures, held_out

if TYPE_CHECKING:
    from pathlib import Path

    from fer_trainer.data.cache import Decoded

_SPLIT_FOLDERS = {
    "train": Split.TRAIN,
    "valid": Split.VALID,
    "val": Split.VALID,
    "validation": Split.VALID,
    "test": Split.TEST,
}

_VALID_SHARE = _TEST_SHARE = 0.1


def load(path: Path) -> tuple[Decoded, str]:
    """Read `<class>/*.png` or `<split>/<class>/*.png`; pictures are made gray and 48x48.

    Without split folders, one picture in ten is held out for validation and one for the test, by
    the hash of its name. With `train` and `test` alone, one training picture in ten validates.

    Raises:
        DataError: there is no picture, or some are corrupt.
    """
    found = sorted(f for f in path.rglob("*") if f.suffix.lower() in ENDINGS)
    tops = {f.relative_to(path).parts[0].lower() for f in found}
    has_splits = bool(tops) and tops <= set(_SPLIT_FOLDERS)
    has_valid = any(_SPLIT_FOLDERS.get(top) == Split.VALID for top in tops)
    pictures = []
    for file in found:
        name = file.relative_to(path).as_posix()
        split = held_out(name, valid=_VALID_SHARE, test=0.0 if has_splits else _TEST_SHARE)
        if has_splits:
            named = _SPLIT_FOLDERS[file.relative_to(path).parts[0].lower()]
            split = split if named == Split.TRAIN and not has_valid else named
        pictures.append(PictureFile(file, name, file.parent.name, split))
    return decode_pictures("folders", pictures, decode_resized)
