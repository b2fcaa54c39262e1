"""Optimisers, the learning rate as a function of progress, and the weights' moving average."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fer_trainer.recipe import OptimSection


def make_optimizer(network: nn.Module, section: OptimSection, lr: Tensor) -> torch.optim.Optimizer:
    """Make the optimiser; biases and normalisation are not decayed.

    Args:
        network: on its device.
        section: which optimiser.
        lr: the learning rate, a scalar on that device, which the optimiser reads at each step.
    """
    on_gpu = lr.is_cuda  # there a CUDA graph may record the step, which asks for these
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": section.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if section.name == "adam":
        return torch.optim.Adam(groups, lr=lr, fused=on_gpu, capturable=on_gpu)
    return torch.optim.SGD(
        groups, lr=lr, momentum=section.momentum, nesterov=section.momentum > 0.0, fused=on_gpu
    )


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a checkpoint's state, and keep the learning rate's place and what suits the device."""
    kept: list[dict[str, Any]] = [
        {name: group[name] for name in ("lr", "fused", "capturable") if name in group}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, kept, strict=True):
        group.update(own)


def learning_rate(section: OptimSection, progress: float) -> float:
    """Give the learning rate of a step.

    Args:
        section: schedule, `lr` as its highest and `final_lr` as its last value.
        progress: steps done through all steps, in [0, 1].

    Source: one-cycle after Smith and Topin, arXiv:1708.07120, with a linear rise and a cosine
    fall; cosine after Loshchilov and Hutter, arXiv:1608.03983, without restarts.
    """
    if section.schedule == "constant":
        return section.lr
    if section.schedule == "one-cycle" and progress < section.warmup:
        return section.lr * (0.04 + 0.96 * progress / section.warmup)
    start = section.warmup if section.schedule == "one-cycle" else 0.0
    fall = (progress - start) / (1.0 - start)
    return section.final_lr + (section.lr - section.final_lr) * 0.5 * (1 + math.cos(math.pi * fall))


class MovingAverage(AveragedModel):
    """Follows a network's weights and running statistics with an exponential moving average.

    Args:
        network: on its device, where it stays.

    Attributes:
        module: the average, a separate network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, use_buffers=True)
        pairs = [
            (follower.detach(), leader.detach())
            for follower, leader in zip(_tensors(self.module), _tensors(network), strict=True)
        ]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, share: Tensor) -> None:
        """Move by a share, a scalar on the device, towards the network as it is now."""
        followers, leaders = (list(side) for side in zip(*self._floats, strict=True))
        torch._foreach_mul_(followers, 1.0 - share)  # what torch's own averages call
        torch._foreach_add_(followers, torch._foreach_mul(leaders, share))  # noqa: SLF001
        for follower, leader in self._counts:
            follower.copy_(leader)


def following_share(decay: float, step: int) -> float:
    """Give the share by which the average follows after a step, counted from 0.

    The decay rises as (1 + n) / (10 + n) to its value, so that the first epochs are not an average
    with the random start. A decay of 0 copies.
    """
    return 1.0 - min(decay, (1 + step) / (10 + step)) if step else 1.0


def _tensors(network: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(network.parameters(), network.buffers())
