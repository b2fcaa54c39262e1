"""Opening of any data source, by path and kind, as a `FaceSet`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fer_trainer import labels as words
from fer_trainer.data import affectnet, ckplus, fer2013, ferplus, folders, rafdb
from fer_trainer.data.duplicates import also_in_training
from fer_trainer.data.faceset import FaceSet, Split
from fer_trainer.data.kinds import NAMES, Kind
from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fer_trainer.data.cache import Decoded
    from fer_trainer.recipe import DataSection


@dataclass(frozen=True, slots=True)
class Source:
    """The user's options about the data.

    Attributes:
        path: file or folder.
        kind: which data set; None looks.
        votes: FER+'s table, for recipes that train on votes.
        label_map: renames, merges or drops classes, see `labels.mapping`.
        check_counts: refuse official sets with other counts than the official ones.
        limit: at most so many images of each split; 0 is no limit.
        name: what reports call it; empty for the kind's own name.
    """

    path: Path
    kind: Kind | None = None
    votes: Path | None = None
    label_map: Mapping[str, str] = field(default_factory=dict)
    check_counts: bool = True
    limit: int = 0
    name: str = ""


def open_faces(source: Source, section: DataSection) -> FaceSet:
    """Open a data set as a recipe wants it.

    Args:
        source: where and what it is.
        section: which targets, and whether training copies are left out.

    Raises:
        DataError: the data is missing or not what it should be.
        StorageError: the cache cannot be written.
    """
    if not source.path.exists():
        raise DataError(
            f"there is no {source.path}", remedy="give an existing file or folder as --data"
        )
    kind = source.kind or recognise(source.path)
    decoded, sha256 = _load(kind, source)
    faces = labelled(source.name or NAMES[kind], decoded, sha256)
    if section.targets != "label" or section.votes_share:
        faces = _with_votes(faces, source, section)
    faces = mapped(faces, source.label_map)
    if section.exclude_duplicates:
        faces = faces.take(~also_in_training(faces))
    return faces.limited(source.limit) if source.limit else faces


def recognise(path: Path) -> Kind:
    """Recognise the data set at a path by its files' names."""
    if path.is_file():
        return "fer2013"
    if (path / "training.csv").is_file() or (path / "train_set").is_dir():
        return "affectnet-8"
    if next(path.rglob(rafdb.LIST), None) is not None:
        return "raf-db"
    first = next((f for f in path.rglob("*") if f.suffix.lower() in {".jpg", ".png"}), None)
    if first is not None and first.name.split("_")[0] in {"Training", "PublicTest", "PrivateTest"}:
        return "fer2013"
    return "ck48" if first is not None and ckplus.FILE.match(first.name) else "folders"


def is_affectnet(source: Source) -> bool:
    """Return whether the data is AffectNet, whose rows are separate from FER2013's."""
    return (source.kind or recognise(source.path)).startswith("affectnet")


def labelled(name: str, decoded: Decoded, sha256: str) -> FaceSet:
    """Give a decoded source one-hot targets over its own classes, in our words."""
    spelt = [words.word(label) for label in decoded.label]
    labels = words.ordered(set(spelt))
    index = {label: number for number, label in enumerate(labels)}
    targets = np.zeros((len(spelt), len(labels)), np.float32)
    targets[np.arange(len(spelt)), [index[label] for label in spelt]] = 1.0
    return FaceSet(name, labels, decoded.images, targets, decoded.split, decoded.names, sha256)


def mapped(faces: FaceSet, label_map: Mapping[str, str]) -> FaceSet:
    """Rename, merge and drop classes; images left without a class go.

    Raises:
        DataError: the map names an unknown class, or leaves a class without a training image.
    """
    if not label_map:
        return faces
    becomes = words.mapping(faces.labels, label_map)
    labels = words.ordered({word for word in becomes.values() if word is not None})
    targets = np.zeros((len(faces), len(labels)), np.float32)
    for column, label in enumerate(faces.labels):
        word = becomes[label]
        if word is not None:
            targets[:, labels.index(word)] += faces.targets[:, column]
    total = targets.sum(axis=1, keepdims=True)
    targets /= np.maximum(total, np.finfo(np.float32).tiny)
    kept = replace(faces, labels=labels, targets=targets).take(total[:, 0] > 0)
    trained = kept.targets[kept.where(Split.TRAIN)].sum(axis=0)
    for label, count in zip(labels, trained, strict=True):
        if count == 0:
            raise DataError(
                f"after mapping, the class {label} has no training image",
                remedy="drop it with --map, or map another class to it",
            )
    return kept


def _load(kind: Kind, source: Source) -> tuple[Decoded, str]:
    path, check = source.path, source.check_counts
    if kind == "fer2013":
        return fer2013.load(path, check_counts=check)
    if kind in {"affectnet-7", "affectnet-8"}:
        return affectnet.load(path, int(kind[-1]), check_counts=check)
    if kind == "raf-db":
        return rafdb.load(path, check_counts=check)
    if kind == "ck48":
        return ckplus.load(path, check_counts=check)
    return folders.load(path)


def _with_votes(faces: FaceSet, source: Source, section: DataSection) -> FaceSet:
    if source.votes is None:
        raise DataError(
            "the recipe trains on FER+ votes, but no votes were given",
            remedy="give the table as --votes",
        )
    if section.targets == "label":
        return ferplus.blended(faces, source.votes, section.votes_share)
    return ferplus.with_votes(faces, source.votes, section.targets)
