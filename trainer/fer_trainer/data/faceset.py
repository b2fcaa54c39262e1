"""The record that all data sources give, 48x48 gray faces with target distributions and splits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fer_trainer.labels import TABLE_ORDER

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE_PX = 48
"""Side of a face crop, of FER2013 and of everything trained here."""

UInt8Array: TypeAlias = NDArray[np.uint8]
Float32Array: TypeAlias = NDArray[np.float32]
Int64Array: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


class Split(IntEnum):
    """The uses of an image; FER2013 calls them Training, PublicTest and PrivateTest."""

    TRAIN = 0
    VALID = 1
    TEST = 2

    @classmethod
    def parse(cls, name: str) -> Split:
        """Read `train`, `valid` or `test`, or FER2013's names.

        Raises:
            KeyError: the name is none of them.
        """
        fer2013 = {"training": cls.TRAIN, "publictest": cls.VALID, "privatetest": cls.TEST}
        return fer2013[name.lower()] if name.lower() in fer2013 else cls[name.upper()]


@dataclass(frozen=True, slots=True, eq=False)
class FaceSet:
    """Faces with the labels that people gave them; N faces, C classes.

    Attributes:
        name: the data set, for reports.
        labels: the class words in output order.
        images: uint8 (N, 48, 48), usually memory-mapped; read only.
        targets: float32 (N, C), rows sum to 1; one-hot where a source has a single label.
        split: uint8 (N,), values of `Split`.
        names: file name or row of each image, for messages and joins.
        sha256: hash of what was decoded, over pixels, names, labels and splits.
    """

    name: str
    labels: tuple[str, ...]
    images: UInt8Array
    targets: Float32Array
    split: UInt8Array
    names: tuple[str, ...]
    sha256: str

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.images.shape != (count, SIZE_PX, SIZE_PX) or self.images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 ({count}, 48, 48), not {self.images.shape}")
        if self.targets.shape != (count, len(self.labels)):
            raise ValueError(
                f"targets must be ({count}, {len(self.labels)}), not {self.targets.shape}"
            )
        if self.split.shape != (count,):
            raise ValueError(f"split must be ({count},), not {self.split.shape}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def hard_labels(self) -> Int64Array:
        """The likeliest class of each image, int64 (N,); of equals the first in FER+'s table."""
        ranks = [(*TABLE_ORDER, label).index(label) for label in self.labels]
        order = np.argsort(ranks, kind="stable").astype(np.int64)
        likeliest: Int64Array = order[self.targets[:, order].argmax(axis=1)]
        return likeliest

    def where(self, split: Split) -> Int64Array:
        """Return the indices of one split, int64, rising."""
        return np.flatnonzero(self.split == split).astype(np.int64)

    def take(self, indices: Sequence[int] | Int64Array | BoolArray) -> FaceSet:
        """Make the set of some of the images; the hash stays that of the whole."""
        chosen = np.arange(len(self))[np.asarray(indices)]
        return replace(
            self,
            images=self.images[chosen],
            targets=self.targets[chosen],
            split=self.split[chosen],
            names=tuple(self.names[i] for i in chosen),
        )

    def only(self, split: Split) -> FaceSet:
        """Make the set of one split."""
        return self.take(self.where(split))

    def training(self) -> FaceSet:
        """Make the set of training images; row i of a view's draws belongs to its image i."""
        return self.only(Split.TRAIN)

    def training_sha256(self) -> str:
        """Hash the training images, in order; soft targets name the hash."""
        training = self.training()
        digest = hashlib.sha256(np.ascontiguousarray(training.images).tobytes())
        digest.update("\n".join(training.names).encode())
        return digest.hexdigest()

    def limited(self, per_split: int) -> FaceSet:
        """Keep at most `per_split` images of each split, as evenly over the classes as they go."""
        truth = self.hard_labels
        keep = []
        for split in Split:
            indices = self.where(split)
            own = truth[indices]
            rank = np.empty(len(indices), np.int64)  # first of its class, second of its class, ...
            for label in range(len(self.labels)):
                rank[own == label] = np.arange((own == label).sum())
            keep.append(indices[np.argsort(rank, kind="stable")[:per_split]])
        return self.take(np.sort(np.concatenate(keep)))
