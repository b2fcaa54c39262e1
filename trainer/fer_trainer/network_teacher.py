"""The teacher made of trained networks, one or an ensemble, run on every batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fer_trainer import checkpoint
from fer_trainer.deploy import network_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.views import TrainingView


class NetworkTeacher:
    """One network or an ensemble, run on every batch; satisfies `Teacher`.

    Args:
        networks: trained, on the student's device.
        states: their checkpoints.

    Attributes:
        members: each network's record in a targets file.
        selected_on: `test` when that split chose one of them, else `valid`.
    """

    def __init__(self, networks: Sequence[nn.Module], states: Sequence[Checkpoint]) -> None:
        self._networks = [
            network.eval().requires_grad_(requires_grad=False) for network in networks
        ]
        self.members = [_member(state) for state in states]
        self.selected_on = max((state.selected_on for state in states), key="test".__eq__)

    def view(self, epoch: int, wanted: TrainingView) -> TrainingView:
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
    def plain_logits(self, pixels: Tensor) -> Tensor:
        """Run the networks on plain images, uint8 (B, 48, 48); float32 (B, C)."""
        return self._mean(pixels.unsqueeze(1).float() / 255.0)

    def _mean(self, gray: Tensor) -> Tensor:
        return torch.stack([network(gray).float() for network in self._networks]).mean(dim=0)


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


def _member(state: Checkpoint) -> dict[str, Any]:
    recipe = state.parsed_recipe
    return {
        "network": recipe.network.name,
        "recipe": recipe.name,
        "seed": recipe.train.seed,
        "epoch": state.best_epoch,
        f"{state.selected_on}_accuracy": state.best_accuracy,
        "commit": state.commit,
    }
