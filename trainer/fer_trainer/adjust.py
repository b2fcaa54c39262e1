"""Rare classes raised after training, by a share of their rarity that the validation split chooses.

A network trained on few images of a class says it too seldom. Subtracting tau times the logarithm
of a class's share of the training images from its logit counters that, without training again.

Source: post-hoc logit adjustment, Menon et al., arXiv:2007.07314.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fer_trainer.data.faceset import Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError
from fer_trainer.inference import predict
from fer_trainer.metrics import figures, fit_temperature, probabilities

if TYPE_CHECKING:
    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.data.faceset import FaceSet, Float32Array, Int64Array

TAUS = tuple(step / 20.0 for step in range(21))
"""What is tried; 1 would suit a test in which all classes were equally frequent."""

GIVEN_UP = 0.002
"""Accuracy that rare classes may cost, below the best of `TAUS` on the validation split."""


def adjusted(checkpoint: Checkpoint, faces: FaceSet) -> Checkpoint:
    """Fold the adjustment into the averaged network's last bias.

    Args:
        checkpoint: of a finished run.
        faces: the data it was trained on; its training split gives the shares, its validation
            split chooses tau.

    Returns:
        The same checkpoint with other biases and its `tau`; nothing else starts from it but
        `evaluate`, `export` and another run.

    Raises:
        CheckpointError: it is adjusted already, or its network does not end in a linear layer.
    """
    if checkpoint.tau:
        raise CheckpointError(
            f"the checkpoint is adjusted already, by {checkpoint.tau}",
            remedy="export it without --adjust, or adjust the run's own",
        )
    network = network_of(checkpoint)
    name, last = _last_linear(network)
    shares = faces.training().targets.mean(axis=0)  # (C,)
    valid = faces.only(Split.VALID)
    logits = predict(network, valid.images, torch.device("cpu")).numpy()
    temperature = np.float32(fit_temperature(logits, valid.hard_labels))
    calibrated = (logits / temperature).astype(np.float32)
    rarity = -np.log(shares.astype(np.float32))  # (C,)
    tau = choose_tau(calibrated, rarity, valid.hard_labels, faces.labels)
    key = f"module.{name}.bias"
    bias = last.bias.detach() + torch.from_numpy(np.float32(tau) * temperature * rarity)
    return replace(checkpoint, ema={**checkpoint.ema, key: bias}, tau=tau)


def choose_tau(
    logits: Float32Array, rarity: Float32Array, truth: Int64Array, labels: tuple[str, ...]
) -> float:
    """Choose how much of the classes' rarity is added to the logits.

    Args:
        logits: (N, C), calibrated.
        rarity: minus the logarithm of the classes' shares, (C,).
        truth: (N,).
        labels: C words.

    Returns:
        Of those whose accuracy is at most `GIVEN_UP` below the best, the one with the largest
        macro-F1; the smaller of equal ones.
    """
    tried = [
        figures(probabilities(logits + np.float32(tau) * rarity, 1.0), truth, labels)
        for tau in TAUS
    ]
    enough = max(one.accuracy for one in tried) - GIVEN_UP
    fit = [(one.macro_f1, -tau) for tau, one in zip(TAUS, tried, strict=True)
           if one.accuracy >= enough]  # fmt: skip
    return -max(fit)[1]


def _last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    found = [(name, layer) for name, layer in network.named_modules()
             if isinstance(layer, nn.Linear) and layer.bias is not None]  # fmt: skip
    if not found:
        raise CheckpointError(
            "the network has no last linear layer to adjust", remedy="export it without --adjust"
        )
    return found[-1]
