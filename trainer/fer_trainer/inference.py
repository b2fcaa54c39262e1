"""Inference of a network over many images, in order, without gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fer_trainer.data.faceset import UInt8Array

_BATCH = 512


@torch.no_grad()
def predict(network: nn.Module, images: Tensor | UInt8Array, device: torch.device) -> Tensor:
    """Run plain, unaugmented images through a network in evaluation mode.

    Args:
        network: takes gray in [0, 1], (B, 1, 48, 48); its mode is put back afterwards.
        images: uint8 (N, 48, 48), a tensor or a (memory-mapped) array.
        device: where the network is.

    Returns:
        Logits, float32 (N, C), on the CPU.
    """
    was_training = network.training
    network.eval()
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        pixels = batch if isinstance(batch, Tensor) else torch.tensor(batch)
        gray = pixels.to(device).unsqueeze(1).float() / 255.0
        parts.append(network(gray).float().cpu())
    network.train(was_training)
    return torch.cat(parts)
