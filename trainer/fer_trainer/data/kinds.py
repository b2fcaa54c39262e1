"""The kinds of data sets that there are readers for."""

from __future__ import annotations

from typing import Literal, TypeAlias

from fer_trainer.errors import DataError

Kind: TypeAlias = Literal["fer2013", "affectnet-7", "affectnet-8", "raf-db", "ck48", "folders"]

NAMES: dict[Kind, str] = {
    "fer2013": "FER2013",
    "affectnet-7": "AffectNet-7",
    "affectnet-8": "AffectNet-8",
    "raf-db": "RAF-DB",
    "ck48": "CK+48",
    "folders": "class folders",
}
"""Names in reports and manifests."""


def parse_kind(text: str) -> Kind:
    """Read a kind.

    Raises:
        DataError: there is no reader of that name.
    """
    for kind in NAMES:
        if kind == text:
            return kind
    raise DataError(f"{text!r} is no kind of data", remedy=f"use one of {', '.join(NAMES)}")
