"""Teachers: networks that run beside the student, or a file of what they said about its views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from fer_agent.errors import UsageError
from fer_trainer import checkpoint
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError
from fer_trainer.targets import read_targets
from fer_trainer.views import View

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.data.faceset import FaceSet


class Teacher(Protocol):
    """Says what it thinks of the training images' views."""

    def view(self, epoch: int, wanted: View) -> View:
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


class NetworkTeacher:
    """One network or an ensemble, run on every batch; satisfies `Teacher`.

    Args:
        networks: trained, on the student's device.
        states: their checkpoints.

    Attributes:
        members: what is told of each network in a targets file.
        selected_on: `test` when that split chose one of them, else `valid`.
    """

    def __init__(self, networks: Sequence[nn.Module], states: Sequence[Checkpoint]) -> None:
        self._networks = [
            network.eval().requires_grad_(requires_grad=False) for network in networks
        ]
        self.members = [_told(state) for state in states]
        self.selected_on = max((state.selected_on for state in states), key="test".__eq__)

    def view(self, epoch: int, wanted: View) -> View:
        """Take any view."""
        del epoch
        return wanted

    @torch.no_grad()
    def logits(self, views: Tensor, chosen: Tensor) -> Tensor:
        """Run the networks, on a GPU in bfloat16, as the student learns."""
        del chosen
        with torch.autocast("cuda", torch.bfloat16, enabled=views.is_cuda):
            return self._mean(views)

    @torch.no_grad()
    def answers(self, pixels: Tensor) -> Tensor:
        """Run the networks on plain images, uint8 (B, 48, 48); float32 (B, C)."""
        return self._mean(pixels.unsqueeze(1).float() / 255.0)

    def _mean(self, gray: Tensor) -> Tensor:
        return torch.stack([network(gray).float() for network in self._networks]).mean(dim=0)


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

    def view(self, epoch: int, wanted: View) -> View:
        """Go round the file's views, with the draws they were made with."""
        del wanted
        number = epoch % len(self._logits)
        self._now.copy_(self._logits[number])
        return View(self._seed, number, self._augment)

    def logits(self, views: Tensor, chosen: Tensor) -> Tensor:
        """Look up."""
        del views
        return self._now[chosen].float()


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
    networks = [network_of(state).to(device) for state in states]
    for network in networks:
        network.to(memory_format=torch.channels_last)
    return NetworkTeacher(networks, states)


def _told(state: Checkpoint) -> dict[str, Any]:
    recipe = state.parsed_recipe
    return {
        "network": recipe.network.name,
        "recipe": recipe.name,
        "seed": recipe.train.seed,
        "epoch": state.best_epoch,
        f"{state.selected_on}_accuracy": state.best_accuracy,
        "commit": state.commit,
    }
