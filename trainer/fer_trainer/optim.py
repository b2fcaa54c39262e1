"""Optimisers, the learning rate as a function of progress, and the weights' moving average."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from fer_trainer.recipe import OptimSection


def make_optimizer(network: nn.Module, section: OptimSection) -> torch.optim.Optimizer:
    """Make the optimiser; biases and normalisation are not decayed."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": section.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if section.name == "adam":
        return torch.optim.Adam(groups, lr=section.lr)
    return torch.optim.SGD(
        groups, lr=section.lr, momentum=section.momentum, nesterov=section.momentum > 0.0
    )


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


_Tensors: TypeAlias = "list[Tensor] | tuple[Tensor, ...]"


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Follow a network's weights and running statistics with an exponential moving average.

    The decay rises as (1 + n) / (10 + n) to its value, so that the first epochs are not an average
    with the random start. A decay of 0 copies.
    """

    def average(followers: _Tensors, leaders: _Tensors, updates: Tensor | int) -> None:
        now = min(decay, (1 + int(updates)) / (10 + int(updates)))
        if followers[0].is_floating_point():
            torch._foreach_lerp_(followers, leaders, 1.0 - now)  # what torch's own averages call
        else:
            for follower, leader in zip(followers, leaders, strict=True):
                follower.copy_(leader)

    return AveragedModel(network, multi_avg_fn=torch.no_grad()(average), use_buffers=True)
