"""Targets from FER+, ten people's votes for each FER2013 image.

Figures are reported over PrivateTest's 3,573 images that have votes. An image's class is the one
with the most votes of all ten columns. 28 images whose most votes are for
`unknown` or `not a face` alone are left out, which leaves 3,545. In 151 of those several emotions
share the most votes, and the first in the table's order counts (`labels.TABLE_ORDER`); in 25 an
emotion shares them with `unknown`, and the emotion counts. Both is what `argmax` over the published
table gives. The authors' own code (microsoft/FERPlus, src/train.py) evaluates fewer and easier
images, here the kind `majority`: 3,152.

Source: Barsoum et al., Training Deep Networks for Facial Expression Recognition with Crowd-Sourced
Label Distribution, arXiv:1608.01041; src/ferplus.py of microsoft/FERPlus at commit 06447e0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from fer_trainer.data.csv_rows import csv_rows
from fer_trainer.data.faceset import FaceSet, Float32Array, Split
from fer_trainer.errors import DataError
from fer_trainer.labels import BASIC_8, word

if TYPE_CHECKING:
    from pathlib import Path

TargetKind = Literal["majority", "plurality", "distribution", "agreed"]

_COLUMNS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt",
    "unknown", "nf",
)  # fmt: skip

_ORDER = [tuple(word(c) for c in _COLUMNS).index(label) for label in BASIC_8]
"""The column of each of our eight classes."""

_MIN_VOTES = 2
"""A class with a single vote is taken for a slip, as in the authors' code."""

_AGREED_VOTES = 5


def with_votes(faces: FaceSet, votes_csv: Path, kind: TargetKind) -> FaceSet:
    """Replace FER2013's labels by FER+'s, with eight classes.

    Images without an accepted emotion are left out: no majority, or more votes for `unknown` or
    `not a face` than for any emotion.

    Args:
        faces: FER2013 with its own labels; all of it when the votes are joined by row.
        votes_csv: the authors' `fer2013new.csv`, joined by row, or a table with a column `file`,
            joined by name.
        kind: `majority`, one class with more than half of the votes that count; `plurality`, the
            class with the most votes, ties shared; `distribution`, the share of the votes;
            `agreed`, one class that more than five of the ten people voted for.

    Raises:
        DataError: the table has broken rows, or does not belong to these images.
    """
    votes = _join(faces, votes_csv)
    targets = vote_targets(votes, kind)
    kept = targets.sum(axis=1) > 0
    if not kept.any():
        raise DataError("FER+ accepts none of these images", remedy="use the whole FER2013")
    return replace(faces, name=f"FER+ {kind}", labels=BASIC_8, targets=targets).take(kept)


def blended(faces: FaceSet, votes_csv: Path, share: float) -> FaceSet:
    """Mix FER+'s distribution into FER2013's own training labels; validation and test stay.

    Args:
        faces: FER2013 with labels among the eight.
        votes_csv: as in `with_votes`.
        share: of the votes in the target.
    """
    spread = vote_targets(_join(faces, votes_csv), "distribution")
    spread = spread[:, [BASIC_8.index(label) for label in faces.labels]]
    total = spread.sum(axis=1, keepdims=True)
    usable = (total > 0) & (faces.split == Split.TRAIN)[:, None]
    spread = spread / np.maximum(total, np.finfo(np.float32).tiny)
    mixed = np.where(usable, share * spread + (1.0 - share) * faces.targets, faces.targets)
    return replace(faces, targets=mixed.astype(np.float32))


def vote_targets(votes: Float32Array, kind: TargetKind) -> Float32Array:
    """Turn votes (N, 10) into targets over our eight classes, float32 (N, 8).

    A row of zeros means that FER+ accepts no emotion for the image.
    """
    kept = np.where(votes >= _MIN_VOTES, votes, 0.0)
    emotions = kept[:, _ORDER]  # (N, 8)
    total = kept.sum(axis=1, keepdims=True)  # (N, 1), unknown and no face included
    most = kept.max(axis=1, keepdims=True)
    named = (emotions.max(axis=1, keepdims=True) == most) & (most > 0)
    if kind == "distribution":
        targets = emotions
    elif kind == "agreed":
        targets = (emotions > _AGREED_VOTES).astype(np.float32)
    elif kind == "plurality":
        targets = (emotions == most).astype(np.float32)
    else:
        targets = ((emotions == most) & (most > 0.5 * total)).astype(np.float32)
    targets = np.where(named, targets, 0.0)
    share = targets / np.maximum(targets.sum(axis=1, keepdims=True), 1e-9)
    return np.asarray(share, np.float32)


def _join(faces: FaceSet, path: Path) -> Float32Array:
    """Give the votes of each face, (N, 10); zeros where the table has none."""
    by_name, in_order = _read(path)
    if by_name:
        found = [by_name.get(name) for name in faces.names]
        if all(votes is None for votes in found):
            raise DataError(f"{path} names none of these images", remedy="give FER2013's own votes")
        nothing = np.zeros(len(_COLUMNS), np.float32)
        return np.stack([nothing if votes is None else votes for votes in found])
    try:
        rows = [int(name.removeprefix("row-")) - 1 for name in faces.names]
    except ValueError as error:
        raise DataError(
            f"{path} has no column `file`, so it fits only fer2013.csv",
            remedy="give fer2013.csv as --data, or votes with a column `file`",
        ) from error
    if max(rows) >= len(in_order):
        raise DataError(
            f"{path} has {len(in_order)} rows, the data has row {max(rows) + 1}",
            remedy="give the votes of the same edition",
        )
    return in_order[rows]


def _read(path: Path) -> tuple[dict[str, Float32Array], Float32Array]:
    by_name, in_order = {}, []
    for number, row in csv_rows(path):
        lower = {key.strip().lower(): value for key, value in row.items()}
        try:
            votes = np.array([float(lower[c]) for c in _COLUMNS], np.float32)
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{path} row {number} has no number in one of {', '.join(_COLUMNS)}",
                remedy="repair the row, or give FER+'s own table",
            ) from error
        if not np.isfinite(votes).all() or votes.min() < 0:
            raise DataError(
                f"{path} row {number} has votes that are negative or infinite",
                remedy="repair the row",
            )
        in_order.append(votes)
        if lower.get("file"):
            by_name[lower["file"]] = votes
    if not in_order:
        raise DataError(f"{path} has no rows", remedy="give FER+'s own table")
    return by_name, np.stack(in_order)
