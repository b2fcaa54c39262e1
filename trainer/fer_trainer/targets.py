"""Soft-target files with a teacher's logits for views of the training images and for the rest.

A file is enough to train a student where no teacher fits, and to see how good the teacher is: it
also holds the teacher's logits for the plain validation and test images. It holds no pictures.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fer_trainer.augment import DRAWS, augment, draw_view
from fer_trainer.data.faceset import Split
from fer_trainer.errors import CheckpointError
from fer_trainer.files import write_whole
from fer_trainer.recipe import AugmentSection, DataSection
from fer_trainer.views import TrainingView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fer_trainer.data.faceset import FaceSet, Float32Array
    from fer_trainer.network_teacher import NetworkTeacher

_FORMAT = 2
_BATCH = 512
_HELD_OUT = (Split.VALID, Split.TEST)

Float16Array = NDArray[np.float16]


@dataclass(frozen=True, slots=True, eq=False)
class SoftTargets:
    """A file's content; V views of N training images, C classes.

    Attributes:
        labels: class words in output order.
        data: which labels the teacher was trained on.
        data_sha256: of the whole data set.
        training_sha256: of its training images, in order.
        seed: of the views' draws.
        augment: how strongly the views differ from the images.
        selected_on: the split that chose the teacher's epochs.
        members: of the ensemble: network, recipe, seed, epoch, accuracy that chose it, commit.
        views: logits, float16 (V, N, C).
        held_out: by split, the logits of its plain images by file name, float16 (C,) each.
    """

    labels: tuple[str, ...]
    data: DataSection
    data_sha256: str
    training_sha256: str
    seed: int
    augment: AugmentSection
    selected_on: str
    members: tuple[dict[str, Any], ...]
    views: Float16Array
    held_out: Mapping[Split, Mapping[str, Float16Array]]

    def logits_of(self, faces: FaceSet, split: Split) -> Float32Array:
        """Look up the teacher's logits for the plain images of a split, float32 (M, C).

        Raises:
            CheckpointError: the file is about other data, or lacks an image of the split.
        """
        stored, part = self.held_out[split], faces.only(split)
        missing = sum(name not in stored for name in part.names)
        if faces.sha256 != self.data_sha256 or missing:
            lacks = f"lacks {missing} images of {split.name.lower()}" if missing else "is of others"
            raise CheckpointError(
                f"the targets file is not about these images of {faces.name}: it {lacks}",
                remedy="give the data, votes and label map that the teacher was trained with",
            )
        return np.stack([stored[name] for name in part.names]).astype(np.float32)


def write_targets(
    teacher: NetworkTeacher,
    faces: FaceSet,
    path: Path,
    *,
    views: int,
    seed: int,
    augment_section: AugmentSection,
    device: torch.device,
    data_section: DataSection | None = None,
) -> None:
    """Write a teacher's logits for several views of each training image and for all other images.

    Args:
        teacher: gives the logits.
        faces: the data.
        path: receives the file.
        views: V.
        seed: of the draws.
        augment_section: of the views.
        device: the teacher's.
        data_section: which labels the teacher was trained on.

    Raises:
        StorageError: the disk refuses the file.
    """
    drawn = [TrainingView(seed, number, augment_section) for number in range(views)]
    arrays: dict[str, Any] = {"logits": _of_views(teacher, faces, drawn, device)}
    for split in _HELD_OUT:
        part = faces.only(split)
        arrays[f"{split.name.lower()}_logits"] = _of_plain(teacher, part, device)
        arrays[f"{split.name.lower()}_names"] = np.array([n.encode() for n in part.names], "S")
    meta = {
        "format": _FORMAT,
        "labels": faces.labels,
        "data": (data_section or DataSection()).model_dump(mode="json"),
        "data_sha256": faces.sha256,
        "training_sha256": faces.training_sha256(),
        "seed": seed,
        "draws": DRAWS,
        "augment": augment_section.model_dump(mode="json"),
        "selected_on": teacher.selected_on,
        "members": teacher.members,
    }
    write_whole(path, lambda file: np.savez(file, meta=np.array(json.dumps(meta)), **arrays))


def read_targets(path: Path) -> SoftTargets:
    """Read a targets file.

    Raises:
        CheckpointError: the file is missing, broken, or of another version of the trainer.
    """
    try:
        if path.exists() and not zipfile.is_zipfile(path):
            raise ValueError("it is damaged, or another kind of file")  # noqa: TRY301  # as below
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return _parsed(json.loads(str(stored["meta"])), stored)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no {path}", remedy="write it with `fer-train teacher --write-targets`"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no targets file: {str(error).partition(chr(10))[0]}",
            remedy="write it again with `fer-train teacher --write-targets`",
        ) from error


def _parsed(meta: dict[str, Any], stored: Mapping[str, NDArray[Any]]) -> SoftTargets:
    if meta["format"] != _FORMAT:
        raise ValueError("it is of another version of the trainer")
    if tuple(meta["draws"]) != DRAWS:
        raise ValueError("its views were drawn in another way")
    labels, views = tuple(meta["labels"]), stored["logits"]
    held_out = {}
    for split in _HELD_OUT:
        logits, names = (stored[f"{split.name.lower()}_{part}"] for part in ("logits", "names"))
        if logits.shape != (len(names), len(labels)):
            raise ValueError("its parts do not fit together")
        held_out[split] = dict(zip([name.decode() for name in names], logits, strict=True))
    if views.ndim != 3 or views.dtype != np.float16 or views.shape[2] != len(labels):
        raise ValueError("its parts do not fit together")
    return SoftTargets(
        labels=labels,
        data=DataSection.model_validate(meta["data"]),
        data_sha256=str(meta["data_sha256"]),
        training_sha256=str(meta["training_sha256"]),
        seed=int(meta["seed"]),
        augment=AugmentSection.model_validate(meta["augment"]),
        selected_on=str(meta["selected_on"]),
        members=tuple(meta["members"]),
        views=views,
        held_out=held_out,
    )


def _of_views(
    teacher: NetworkTeacher, faces: FaceSet, views: Sequence[TrainingView], device: torch.device
) -> Float16Array:
    training = faces.training()
    images = torch.tensor(training.images, device=device)
    logits = np.empty((len(views), len(images), len(faces.labels)), np.float16)
    for view, answers in zip(views, logits, strict=True):
        draws = torch.from_numpy(draw_view(view.seed, view.number, len(images)))
        for start in range(0, len(images), _BATCH):
            rows = torch.arange(start, min(start + _BATCH, len(images)))
            batch = augment(images[rows], draws[rows].to(device), view.augment)
            answers[rows.numpy()] = teacher.logits(batch, rows).cpu().numpy()
    return logits


def _of_plain(teacher: NetworkTeacher, part: FaceSet, device: torch.device) -> Float16Array:
    logits = np.empty((len(part), len(part.labels)), np.float16)
    for start in range(0, len(part), _BATCH):
        pixels = torch.tensor(part.images[start : start + _BATCH], device=device)
        logits[start : start + _BATCH] = teacher.plain_logits(pixels).cpu().numpy()
    return logits
