"""Class words that the agent publishes, and their mapping from a source's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BASIC_7 = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
"""The seven classes of FER2013 and RAF-DB, in the output order of every 7-class model."""

BASIC_8 = (*BASIC_7, "contempt")
"""The eight classes of FER+ and AffectNet-8."""

TABLE_ORDER = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear", "contempt")
"""The columns of FER+'s table. Where several classes have the most votes, the first of them in
this order counts as the truth: that is what `argmax` over the published table gives.
"""

_SPELLINGS = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "contemptuous": "contempt",
}

DROP = "drop"
"""In a label map: images of this class are left out."""


def word(name: str) -> str:
    """Turn a source's class name into the word on the wire; unknown names stay, in lower case."""
    plain = name.strip().lower()
    return _SPELLINGS.get(plain, plain)


def mapping(names: Sequence[str], label_map: Mapping[str, str]) -> dict[str, str | None]:
    """Decide what becomes of each class of a source.

    Args:
        names: the source's class names.
        label_map: source name to new name (two names mapped to one merge) or to `drop`.

    Returns:
        For each of `names` its word, or None where it is dropped.

    Raises:
        DataError: the map names a class that the source does not have.
    """
    known = {name.lower(): name for name in names}
    for name in label_map:
        if name.lower() not in known:
            raise DataError(
                f"the label map names the class {name!r}, which the data does not have",
                remedy=f"use names out of: {', '.join(sorted(names))}",
            )
    chosen = {name.lower(): target for name, target in label_map.items()}
    result: dict[str, str | None] = {}
    for name in names:
        target = chosen.get(name.lower(), name)
        result[name] = None if target == DROP else word(target)
    return result


def ordered(words: set[str]) -> tuple[str, ...]:
    """Put class words into output order: the basic eight first, then others by alphabet."""
    return tuple(w for w in BASIC_8 if w in words) + tuple(sorted(words - set(BASIC_8)))
