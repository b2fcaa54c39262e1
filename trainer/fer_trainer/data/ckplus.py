"""Reader of CK+48, the last frames of CK+ as 48x48 gray class folders, split by person.

Source: Lucey et al., The Extended Cohn-Kanade Dataset, CVPR Workshops 2010.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fer_trainer.data.images import decode_exact
from fer_trainer.data.pictures import ENDINGS, PictureFile, decode_pictures, held_out
from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from fer_trainer.data.cache import Decoded

OFFICIAL_COUNT = 981

FILE = re.compile(r"(S\d+)_\d+_\d+")
"""Subject, session and frame."""


def load(path: Path, *, check_counts: bool = True) -> tuple[Decoded, str]:
    """Read CK+48; one person in ten validates, one in ten tests, by the hash of the subject.

    Raises:
        DataError: a name has no subject, the count is wrong, or a picture is bad.
    """
    pictures = []
    for file in sorted(f for f in path.rglob("*") if f.suffix.lower() in ENDINGS):
        match = FILE.match(file.name)
        if match is None:
            raise DataError(
                f"{file} does not name its subject", remedy="CK+48 files are S010_004_00000017.png"
            )
        split = held_out(match[1], valid=0.1, test=0.1)
        name = f"{file.parent.name}/{file.name}"
        pictures.append(PictureFile(file, name, file.parent.name, split))
    if check_counts and len(pictures) != OFFICIAL_COUNT:
        raise DataError(
            f"CK+48 has {OFFICIAL_COUNT} pictures, this copy has {len(pictures)}",
            remedy="use a whole copy, or pass --any-counts when a part is meant",
        )
    return decode_pictures("ck48", pictures, decode_exact)
