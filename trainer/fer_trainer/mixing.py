"""Mixup and CutMix of a batch's images, from numbers drawn before the epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fer_trainer.augment import philox

if TYPE_CHECKING:
    from fer_trainer.recipe import AugmentSection

_FIRST_STREAM = 2
"""Of the epoch's counter: streams 0 and 1 are its views and its order."""


class Mixing(NamedTuple):
    """Numbers drawn for the batches of an epoch (S, ...), or, as `mix` wants it, for one batch.

    Attributes:
        partner: which other image each is blended with, int64 (S, B).
        own: an image's weight outside the box, float32 (S,); 1 under CutMix.
        box: top, left and side of the box that comes from the partner, int64 (S, 3); the side is 0
            under mixup.
        share: the weight of an image's own targets, float32 (S,).
    """

    partner: Tensor
    own: Tensor
    box: Tensor
    share: Tensor


def mixes(section: AugmentSection) -> bool:
    """Return whether a recipe mixes at all."""
    return section.mixup > 0.0 or section.cutmix > 0.0


def draw_mixing(
    seed: int, epoch: int, *, steps: int, batch_size: int, size_px: int, section: AugmentSection
) -> Mixing:
    """Draw the mixing of one epoch's batches.

    When both are on, a coin decides per batch.

    Args:
        seed: the run's seed.
        epoch: the epoch.
        steps: S.
        batch_size: B.
        size_px: side of the images.
        section: `mixup` and `cutmix` are the alphas of their Beta distributions; 0 is off.

    Source: Zhang et al., arXiv:1710.09412; Yun et al., arXiv:1905.04899.
    """
    partner = np.empty((steps, batch_size), np.int64)
    own, share = np.ones(steps, np.float32), np.empty(steps, np.float32)
    box = np.zeros((steps, 3), np.int64)
    for step in range(steps):
        generator = philox(seed, epoch, _FIRST_STREAM + step)
        coin, y, x = generator.random(3)
        use_cutmix = section.cutmix > 0.0 and (section.mixup == 0.0 or coin < 0.5)
        alpha = section.cutmix if use_cutmix else section.mixup
        share[step] = generator.beta(alpha, alpha)
        partner[step] = generator.permutation(batch_size)
        if use_cutmix:
            side = round(size_px * float(np.sqrt(1.0 - share[step])))
            room = size_px - side + 1
            box[step] = int(y * room), int(x * room), side
            share[step] = 1.0 - (side / size_px) ** 2
        else:
            own[step] = share[step]
    return Mixing(*(torch.from_numpy(drawn) for drawn in (partner, own, box, share)))


def mix(gray: Tensor, targets: Tensor, mixing: Mixing) -> tuple[Tensor, Tensor]:
    """Blend each image and its targets with another of the batch.

    Args:
        gray: (B, 1, H, W).
        targets: (B, C).
        mixing: one batch's, on the same device: partner (B,), own (), box (3,), share ().
    """
    line = torch.arange(gray.shape[-1], device=gray.device)
    top, left, side = mixing.box
    in_rows, in_columns = (
        (line >= start) & (line < start + side) for start in (top, left)
    )  # (H,), (W,)
    weight = mixing.own * ~(in_rows[:, None] & in_columns[None, :])  # (H, W)
    mixed = gray * weight + gray[mixing.partner] * (1.0 - weight)
    return mixed, targets * mixing.share + targets[mixing.partner] * (1.0 - mixing.share)
