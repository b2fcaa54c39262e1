"""Losses on labels and soft targets, with named parts for the logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F  # noqa: N812  # torch's own convention

if TYPE_CHECKING:
    from torch import Tensor

    from fer_trainer.recipe import DistillSection, LossSection


def label_loss(logits: Tensor, targets: Tensor, section: LossSection) -> Tensor:
    """Compute the loss of logits against the labels.

    Args:
        logits: (B, C).
        targets: (B, C), rows sum to 1; soft when annotators disagree or images are mixed.
        section: which loss, and how smooth.

    Returns:
        The mean over the batch, a scalar.

    Source: label smoothing, Szegedy et al., arXiv:1512.00567; focal loss, Lin et al.,
    arXiv:1708.02002, here with soft targets; squared hinge, the L2-SVM of Tang, arXiv:1306.0239.
    """
    if section.name == "squared-hinge":
        own = targets * F.relu(1.0 - logits) ** 2
        others = (1.0 - targets) * F.relu(1.0 + logits) ** 2
        return (own + others).sum(dim=1).mean()
    smooth = section.label_smoothing
    targets = targets * (1.0 - smooth) + smooth / targets.shape[1]
    log_probs = F.log_softmax(logits, dim=1)
    if section.name == "focal":
        log_probs = log_probs * (1.0 - log_probs.exp()) ** section.focal_gamma
    return -(targets * log_probs).sum(dim=1).mean()


def soften(teacher_logits: Tensor, temperature: float) -> Tensor:
    """Turn a teacher's logits (B, C) into probabilities at a temperature."""
    return torch.softmax(teacher_logits / temperature, dim=1)


def kd_loss(student_logits: Tensor, soft_targets: Tensor, temperature: float) -> Tensor:
    """Compare student and teacher: T² KL(q‖p), the mean over the batch.

    Args:
        student_logits: (B, C).
        soft_targets: q, the teacher's probabilities at the temperature, (B, C).
        temperature: T; T² keeps the gradient's size as T changes.

    Source: Hinton et al., arXiv:1503.02531.
    """
    log_probs = F.log_softmax(student_logits / temperature, dim=1)  # log p
    return F.kl_div(log_probs, soft_targets, reduction="batchmean") * temperature**2


def distillation_losses(
    student_logits: Tensor,
    targets: Tensor,
    soft_targets: Tensor,
    loss: LossSection,
    distill: DistillSection,
) -> dict[str, Tensor]:
    """Give the named parts: `loss` = alpha `kd_loss` + (1 - alpha) `label_loss`."""
    parts = {
        "kd_loss": kd_loss(student_logits, soft_targets, distill.temperature),
        "label_loss": label_loss(student_logits, targets, loss),
    }
    alpha = distill.alpha
    return {"loss": alpha * parts["kd_loss"] + (1.0 - alpha) * parts["label_loss"], **parts}
