"""Teachers: networks that run beside the student, or a file of what they said about its views."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from fer_agent.errors import UsageError
from fer_trainer import checkpoint
from fer_trainer.augment import augment, draw_view
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError
from fer_trainer.files import write_whole
from fer_trainer.recipe import AugmentSection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from fer_trainer.data.faceset import FaceSet

_FORMAT = 1
_BATCH = 256


@dataclass(frozen=True, slots=True)
class View:
    """Which view of the training images an epoch takes.

    Attributes:
        seed: of its draws.
        number: of its draws; the epoch, or the view's number in a targets file.
        augment: how strongly it differs from the images.
    """

    seed: int
    number: int
    augment: AugmentSection


class Teacher(Protocol):
    """Says what it thinks of the training images' views."""

    def view(self, epoch: int, wanted: View) -> View:
        """Choose the epoch's view; a teacher that runs takes the one that is wanted."""
        ...

    def logits(self, views: Tensor, chosen: Tensor, view: View) -> Tensor:
        """Give the teacher's logits.

        Args:
            views: the batch before any mixing, float32 (B, 1, 48, 48) in [0, 1].
            chosen: the batch's training images, int64 (B,).
            view: as `view` chose.

        Returns:
            float32 (B, C) on the views' device; an ensemble gives the mean of its logits.
        """
        ...


class NetworkTeacher:
    """One network or an ensemble, run on every batch; satisfies `Teacher`.

    Args:
        networks: trained, on the student's device.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self._networks = [
            network.eval().requires_grad_(requires_grad=False) for network in networks
        ]

    def view(self, epoch: int, wanted: View) -> View:
        """Take any view."""
        del epoch
        return wanted

    @torch.no_grad()
    def logits(self, views: Tensor, chosen: Tensor, view: View) -> Tensor:
        """Run the networks."""
        del chosen, view
        return torch.stack([network(views).float() for network in self._networks]).mean(dim=0)


class FileTeacher:
    """Soft targets computed beforehand for some views; satisfies `Teacher`.

    Args:
        path: written by `write_targets`.
        faces: the student's data, whose training images the file must be about.
        device: where the student trains.

    Raises:
        CheckpointError: the file is broken, or about other data or classes.
    """

    def __init__(self, path: Path, faces: FaceSet, device: torch.device) -> None:
        meta, logits = _read(path)
        if tuple(meta["labels"]) != faces.labels or meta["training_sha256"] != (
            faces.training_sha256()
        ):
            raise CheckpointError(
                f"{path} is about other images or classes than {faces.name} holds",
                remedy="write targets for this data with `fer-train teacher --write-targets`",
            )
        self._logits = torch.from_numpy(logits).to(device)  # float16 (V, N, C)
        self._seed = int(meta["seed"])
        self._augment = AugmentSection.model_validate(meta["augment"])

    def view(self, epoch: int, wanted: View) -> View:
        """Go round the file's views, with the draws they were made with."""
        del wanted
        return View(self._seed, epoch % len(self._logits), self._augment)

    def logits(self, views: Tensor, chosen: Tensor, view: View) -> Tensor:
        """Look up."""
        del views
        return self._logits[view.number][chosen].float()


def open_teacher(
    faces: FaceSet, device: torch.device, *, runs: Sequence[Path], targets: Path | None
) -> Teacher | None:
    """Open what the command line names: runs, whose ensemble teaches, or a targets file.

    Raises:
        CheckpointError: a file is broken, or of other classes or data.
        UsageError: both are named.
    """
    if runs and targets:
        raise UsageError(
            "a teacher and a targets file were both given", remedy="give only one of them"
        )
    if targets:
        return FileTeacher(targets, faces, device)
    if runs:
        return open_networks(runs, faces.labels, device)
    return None


def open_networks(
    runs: Sequence[Path], labels: tuple[str, ...], device: torch.device
) -> NetworkTeacher:
    """Open finished runs as one teacher.

    Raises:
        CheckpointError: a run is broken or of other classes.
    """
    states = [checkpoint.load(checkpoint.best_of(run), labels=labels) for run in runs]
    return NetworkTeacher([network_of(state).to(device) for state in states])


def write_targets(
    teacher: NetworkTeacher,
    faces: FaceSet,
    path: Path,
    *,
    views: int,
    seed: int,
    augment_section: AugmentSection,
    device: torch.device,
) -> None:
    """Write a teacher's logits for several views of each training image.

    Args:
        teacher: what is asked.
        faces: the data.
        path: receives float16 logits (V, N, C) and what is needed to draw the views again.
        views: V.
        seed: of the draws.
        augment_section: of the views.
        device: the teacher's.

    Raises:
        StorageError: the disk refuses the file.
    """
    training = faces.training()
    images = torch.tensor(training.images, device=device)
    logits = np.empty((views, len(images), len(faces.labels)), np.float16)
    for number in range(views):
        view = View(seed, number, augment_section)
        draws = torch.from_numpy(draw_view(seed, number, len(images)))
        for start in range(0, len(images), _BATCH):
            rows = torch.arange(start, min(start + _BATCH, len(images)))
            batch = augment(images[rows], draws[rows].to(device), augment_section)
            logits[number, rows.numpy()] = teacher.logits(batch, rows, view).cpu().numpy()
    meta = {
        "format": _FORMAT,
        "labels": faces.labels,
        "training_sha256": faces.training_sha256(),
        "seed": seed,
        "augment": augment_section.model_dump(mode="json"),
    }
    write_whole(path, lambda file: np.savez(file, logits=logits, meta=np.array(json.dumps(meta))))


def _read(path: Path) -> tuple[dict[str, Any], NDArray[np.float16]]:
    try:
        if path.exists() and not zipfile.is_zipfile(path):
            raise ValueError("it is damaged, or another kind of file")  # noqa: TRY301  # as below
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            meta, logits = json.loads(str(stored["meta"])), stored["logits"]
        if meta["format"] != _FORMAT or logits.ndim != 3 or logits.dtype != np.float16:
            raise ValueError("another format")  # noqa: TRY301  # joins the other ways of being none
    except FileNotFoundError as error:
        raise CheckpointError(
            f"there is no {path}", remedy="write it with `fer-train teacher --write-targets`"
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is no targets file: {error}",
            remedy="write it again with `fer-train teacher --write-targets`",
        ) from error
    return meta, logits
