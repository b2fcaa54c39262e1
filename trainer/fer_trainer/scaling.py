"""Vector scaling, a scale and an offset for each class's logit, fitted after training.

One temperature for all classes leaves a network too sure of some and not sure enough of others. The
scales and offsets are fitted on the validation split like the temperature, and folded into the last
layer, so nothing that runs the network knows of them.

Source: Guo et al., arXiv:1706.04599, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from fer_trainer.data.faceset import Split
from fer_trainer.deploy import network_of
from fer_trainer.errors import CheckpointError, DataError
from fer_trainer.inference import predict
from fer_trainer.last_layer import fold
from fer_trainer.metrics import fit_temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_trainer.checkpoint import Checkpoint
    from fer_trainer.data.faceset import FaceSet, Float32Array, Int64Array

_SCALES = (0.05, 20.0)
_OFFSETS = (-10.0, 10.0)


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """A calibration of logits: scale * logits + offset.

    Attributes:
        scale: of each class, float32 (C,), between 0.05 and 20.
        offset: of each class, float32 (C,), in logits.
    """

    scale: Float32Array
    offset: Float32Array


def scaled(checkpoint: Checkpoint, faces: FaceSet) -> Checkpoint:
    """Fold the scaling into the averaged network's last layer.

    Args:
        checkpoint: of a finished run.
        faces: the data it was trained on; its validation split is fitted.

    Raises:
        CheckpointError: it is scaled already, or its network does not end in a linear layer.
        DataError: a class has no validation image.
    """
    if checkpoint.scaled:
        raise CheckpointError(
            "the checkpoint's classes are scaled already",
            remedy="export it without --vector-scaling, or scale the run's own",
        )
    valid = faces.only(Split.VALID)
    for number, label in enumerate(faces.labels):
        if not np.any(valid.hard_labels == number):
            raise DataError(
                f"the class {label} has no validation image to scale it by",
                remedy="export without --vector-scaling",
            )
    logits = predict(network_of(checkpoint), valid.images, torch.device("cpu")).numpy()
    found = fit(logits, valid.hard_labels)
    return replace(
        checkpoint, ema=fold(checkpoint, scale=found.scale, offset=found.offset), scaled=True
    )


def fit(logits: Float32Array, truth: Int64Array) -> Scaling:
    """Find the scales and offsets with the lowest negative log-likelihood.

    Args:
        logits: (N, C), of a split that is neither trained on nor reported.
        truth: (N,), with an image of each class.

    Returns:
        The scaling; its offsets sum to 0, because adding one number to all changes nothing.
    """
    exact = logits.astype(np.float64)
    count, classes = exact.shape
    wanted = np.eye(classes)[truth]  # (N, C)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scale, offset = np.split(parameters, 2)
        log_probs = log_softmax(scale * exact + offset, axis=1)
        excess = (np.exp(log_probs) - wanted) / count  # of the logits' gradient, (N, C)
        slope = np.concatenate([(excess * exact).sum(axis=0), excess.sum(axis=0)])
        return -float((wanted * log_probs).sum()) / count, slope

    start = np.full(classes, 1.0 / fit_temperature(logits, truth))
    best = minimize(
        loss,
        np.concatenate([start, np.zeros(classes)]),
        jac=True,
        method="L-BFGS-B",
        bounds=[_SCALES] * classes + [_OFFSETS] * classes,
    )
    scale, offset = np.split(best.x, 2)
    return Scaling(scale.astype(np.float32), (offset - offset.mean()).astype(np.float32))


def card_sentence(checkpoint: Checkpoint) -> str:
    """Return the card's sentence about the scaling; empty without one."""
    if not checkpoint.scaled:
        return ""
    return (
        "each class's logit was scaled and shifted as fits the validation split best "
        "(vector scaling, Guo et al., arXiv:1706.04599)"
    )
