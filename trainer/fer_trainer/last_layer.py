"""Folding of a scale and an offset of the logits into the last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.data.faceset import Float32Array


def fold(
    checkpoint: Checkpoint, *, offset: Float32Array, scale: Float32Array | None = None
) -> dict[str, Any]:
    """Change the averaged weights so that the logits become scale * logits + offset.

    Args:
        checkpoint: of a finished run; not modified.
        offset: of each class, (C,).
        scale: of each class, (C,); None leaves the weights as they are.

    Returns:
        The new value of `checkpoint.ema`.

    Raises:
        CheckpointError: the network does not end in a linear layer.
    """
    name, last = _last_linear(network_of(checkpoint))
    weight, bias = last.weight.detach(), last.bias.detach()  # (C, F), (C,)
    if scale is not None:
        factor = torch.from_numpy(scale)
        weight, bias = factor[:, None] * weight, factor * bias
    bias = bias + torch.from_numpy(offset)
    return {**checkpoint.ema, f"module.{name}.weight": weight, f"module.{name}.bias": bias}


def _last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    found = [(name, layer) for name, layer in network.named_modules()
             if isinstance(layer, nn.Linear) and layer.bias is not None]  # fmt: skip
    if not found:
        raise CheckpointError(
            "the network has no last linear layer whose logits could be changed",
            remedy="export it without --adjust and --vector-scaling",
        )
    return found[-1]
