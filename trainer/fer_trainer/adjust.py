"""Logit adjustment after training, which raises rare classes by a share of their rarity.

A network trained on few images of a class predicts it too seldom. Subtracting tau times the
logarithm of a class's share of the training images from its logit counters that, without training
again. The validation split chooses tau. Either all classes move, or only those below an even share,
which leaves the frequent classes and their mistakes as they are.

Source: post-hoc logit adjustment, Menon et al., arXiv:2007.07314.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from fer_trainer.data.faceset import Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError
from fer_trainer.inference import predict
from fer_trainer.last_layer import fold
from fer_trainer.metrics import figures, fit_temperature, probabilities

if TYPE_CHECKING:
    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.data.faceset import FaceSet, Float32Array, Int64Array

TAUS = tuple(step / 20.0 for step in range(21))
"""Shares that are tried; 1 would suit a test in which all classes were equally frequent."""


def adjusted(checkpoint: Checkpoint, faces: FaceSet) -> Checkpoint:
    """Fold the adjustment into the averaged network's last bias.

    Args:
        checkpoint: of a finished run.
        faces: the data it was trained on; its training split gives the shares, its validation
            split chooses the adjustment.

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
    shares = faces.training().targets.mean(axis=0)  # (C,)
    valid = faces.only(Split.VALID)
    logits = predict(network, valid.images, torch.device("cpu")).numpy()
    temperature = np.float32(fit_temperature(logits, valid.hard_labels))
    calibrated = (logits / temperature).astype(np.float32)
    chosen = choose(calibrated, shares, valid.hard_labels, faces.labels)
    return replace(
        checkpoint,
        ema=fold(checkpoint, offset=temperature * chosen.lift(shares)),
        tau=chosen.tau,
        tau_of="rare" if chosen.only_rare else "all",
    )


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Summands for calibrated logits.

    Attributes:
        tau: share of the rarity.
        only_rare: whether only classes below an even share are raised.
    """

    tau: float
    only_rare: bool

    def lift(self, shares: Float32Array) -> Float32Array:
        """Give each class's summand, (C,), from the classes' shares of the training images."""
        even = 1.0 / len(shares)
        rarity = np.log(even / shares)
        lift: Float32Array = self.tau * (np.maximum(rarity, 0.0) if self.only_rare else rarity)
        return lift.astype(np.float32)


def choose(
    logits: Float32Array, shares: Float32Array, truth: Int64Array, labels: tuple[str, ...]
) -> Adjustment:
    """Choose the adjustment with the largest sum of accuracy and macro-F1.

    Args:
        logits: (N, C), calibrated, of the validation split.
        shares: of the training images, (C,).
        truth: (N,).
        labels: C words.

    Returns:
        The smallest tau of equally good ones, of the rare classes alone rather than of all.
    """

    def worth(one: Adjustment) -> tuple[float, float, bool]:
        found = figures(probabilities(logits + one.lift(shares), 1.0), truth, labels)
        return round(found.accuracy + found.macro_f1, 6), -one.tau, one.only_rare

    return max((Adjustment(tau, rare) for tau in TAUS for rare in (True, False)), key=worth)


def card_sentence(checkpoint: Checkpoint) -> str:
    """Return the card's sentence about the adjustment; empty without one."""
    if not checkpoint.tau:
        return ""
    rare, rest = "classes below an even share of the training images were", "all classes were"
    return (
        f"{rare if checkpoint.tau_of == 'rare' else rest} moved by {checkpoint.tau:g} of the "
        "logarithm of their rarity, which the validation split chose "
        "(logit adjustment, Menon et al., arXiv:2007.07314)"
    )
