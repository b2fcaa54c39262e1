"""Search for pixel-identical images across splits and within one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from fer_trainer.data.faceset import BoolArray, FaceSet, Int64Array, Split


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Counts of pixel-identical images in a set.

    Attributes:
        in_training: by split name, images that are also in training.
        conflicting_groups: groups of identical training images with more than one label.
    """

    in_training: dict[str, int]
    conflicting_groups: int


def _group_of(faces: FaceSet) -> Int64Array:
    """Number the distinct pictures; int64 (N,)."""
    numbers: dict[bytes, int] = {}
    digests = (hashlib.sha256(image.tobytes()).digest() for image in faces.images)
    return np.array([numbers.setdefault(each, len(numbers)) for each in digests], np.int64)


def also_in_training(faces: FaceSet) -> BoolArray:
    """Mark images outside training whose pixels are also in training; bool (N,)."""
    group = _group_of(faces)
    trained = faces.split == Split.TRAIN
    marked: BoolArray = np.isin(group, group[trained]) & ~trained
    return marked


def find_duplicates(faces: FaceSet) -> Duplicates:
    """Count what a set holds twice."""
    group, truth = _group_of(faces), faces.hard_labels
    trained = faces.split == Split.TRAIN
    marked = np.isin(group, group[trained]) & ~trained
    pairs = np.unique(np.stack([group[trained], truth[trained]], axis=1), axis=0)
    return Duplicates(
        in_training={
            split.name.lower(): int(marked[faces.split == split].sum())
            for split in (Split.VALID, Split.TEST)
        },
        conflicting_groups=int((np.bincount(pairs[:, 0]) > 1).sum()) if len(pairs) else 0,
    )
