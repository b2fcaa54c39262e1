"""Teachers, networks that run beside the student or a file of their logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from fer_agent.errors import UsageError
from fer_trainer.errors import CheckpointError
from fer_trainer.network_teacher import open_networks
from fer_trainer.targets import read_targets
from fer_trainer.views import TrainingView

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from fer_trainer.data.faceset import FaceSet


class Teacher(Protocol):
    """Gives logits for the training images' views."""

    def view(self, epoch: int, wanted: TrainingView) -> TrainingView:
        """Choose the epoch's view; a teacher that runs takes the one that is wanted."""
        ...

    def logits(self, views: Tensor, chosen: Tensor) -> Tensor:
        """Give the teacher's logits on images of the view last chosen.

        Args:
            views: the batch before any mixing, float32 (B, 1, 48, 48) in [0, 1].
            chosen: the batch's training images, int64 (B,).

        Returns:
            float32 (B, C) on the views' device; an ensemble gives the mean of its logits.
        """
        ...


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
        stored = read_targets(path)
        if stored.labels != faces.labels or stored.training_sha256 != faces.training_sha256():
            raise CheckpointError(
                f"{path} is about other images or classes than {faces.name} holds",
                remedy="write targets for this data with `fer-train teacher --write-targets`",
            )
        self._logits = torch.from_numpy(stored.views).to(device)  # float16 (V, N, C)
        self._now = self._logits[0].clone()  # stays in its place: a CUDA graph reads from there
        self._seed = stored.seed
        self._augment = stored.augment

    def view(self, epoch: int, wanted: TrainingView) -> TrainingView:
        """Go round the file's views, with the draws they were made with."""
        del wanted
        number = epoch % len(self._logits)
        self._now.copy_(self._logits[number])
        return TrainingView(self._seed, number, self._augment)

    def logits(self, views: Tensor, chosen: Tensor) -> Tensor:
        """Look up."""
        del views
        return self._now[chosen].float()


def open_teacher(
    faces: FaceSet, device: torch.device, *, runs: Sequence[Path], targets: Path | None
) -> Teacher | None:
    """Open the teacher that the command line names: an ensemble of runs, or a targets file.

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
