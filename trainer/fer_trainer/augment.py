"""Batched augmentation on the device, from numbers that every device draws alike.

Nothing here uses torch's generators. Row i of `draw_view(seed, view, n)` belongs to image i,
whatever batch it falls into and whatever device runs it, so a teacher's soft targets for a view
can be computed on one machine and trained on another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from fer_trainer import degrade

if TYPE_CHECKING:
    from fer_trainer.data.faceset import Float32Array, Int64Array
    from fer_trainer.recipe import AugmentSection

DRAWS = (
    "flip", "rotation", "shift_x", "shift_y", "scale", "shear", "brightness", "contrast",
    "erase", "erase_area", "erase_aspect", "erase_x", "erase_y", *degrade.DRAWS,
)  # fmt: skip
"""Columns of a view's draws; the order is part of the meaning of a soft-target file."""

_COLUMN = {name: number for number, name in enumerate(DRAWS)}

_ERASE_AREA = (0.02, 0.33)
_ERASE_ASPECT = (0.3, 3.3)
"""Share of the image and aspect of the erased box: Zhong et al., arXiv:1708.04896."""


def philox(seed: int, view: int, stream: int) -> np.random.Generator:
    """Open the stream of one purpose; the counter's top word keeps the streams apart."""
    bits = np.random.Philox(key=[seed, view], counter=[0, 0, 0, stream])
    return np.random.Generator(bits)


def draw_view(seed: int, view: int, count: int) -> Float32Array:
    """Draw one view's numbers for all images.

    Args:
        seed: the run's seed.
        view: the epoch, or the number of a teacher's view.
        count: images in the training set.

    Returns:
        Uniform in [0, 1), float32 (count, 24), columns as `DRAWS`.
    """
    return philox(seed, view, 0).random((count, len(DRAWS)), dtype=np.float32)


def draw_order(seed: int, epoch: int, weights: Int64Array | Float32Array) -> Int64Array:
    """Draw the order of one epoch.

    Args:
        seed: the run's seed.
        epoch: the epoch.
        weights: of each image; all equal gives a plain permutation, otherwise images are drawn
            with replacement in proportion.

    Returns:
        Indices, int64 (N,).
    """
    generator = philox(seed, epoch, 1)
    if np.all(weights == weights[0]):
        return generator.permutation(len(weights)).astype(np.int64)
    share = np.asarray(weights, np.float64)
    return generator.choice(len(weights), len(weights), p=share / share.sum()).astype(np.int64)


def augment(images: Tensor, draws: Tensor, section: AugmentSection) -> Tensor:
    """Make one view of a batch.

    Args:
        images: uint8 (B, 48, 48), on any device.
        draws: float32 (B, 24), these images' rows of `draw_view`, on the same device.
        section: how strong; all zero gives the plain images.

    Returns:
        float32 (B, 1, 48, 48) in [0, 1].
    """
    gray = images.unsqueeze(1).float() / 255.0  # (B, 1, H, W)
    signed = draws * 2.0 - 1.0  # (B, 24) in [-1, 1)
    gray = _affine(gray, draws, signed, section)
    contrast = 1.0 + section.contrast * signed[:, _COLUMN["contrast"], None, None, None]
    brightness = 1.0 + section.brightness * signed[:, _COLUMN["brightness"], None, None, None]
    mean = gray.mean(dim=(2, 3), keepdim=True)
    gray = (((gray - mean) * contrast + mean) * brightness).clamp(0.0, 1.0)
    gray = degrade.degrade(gray, lambda name: draws[:, _COLUMN[name], None, None, None], section)
    return _erase(gray, draws, section)


def _affine(gray: Tensor, draws: Tensor, signed: Tensor, section: AugmentSection) -> Tensor:
    """Flip, rotate, scale, shear and shift in one resampling."""
    angle = torch.deg2rad(signed[:, _COLUMN["rotation"]] * section.rotation_deg)
    shear = torch.tan(torch.deg2rad(signed[:, _COLUMN["shear"]] * section.shear_deg))
    zoom = 1.0 + section.scale * signed[:, _COLUMN["scale"]]
    mirror = 1.0 - 2.0 * (draws[:, _COLUMN["flip"]] < section.flip)
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    # grid_sample wants output to input coordinates; both run from -1 to 1, so a shift of the whole
    # width is 2.
    shift_x = 2.0 * section.shift * signed[:, _COLUMN["shift_x"]]
    shift_y = 2.0 * section.shift * signed[:, _COLUMN["shift_y"]]
    rows = (mirror * cos, mirror * (shear * cos - sin), shift_x, sin, shear * sin + cos, shift_y)
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(gray.shape), align_corners=False)
    return F.grid_sample(gray, grid, padding_mode="zeros", align_corners=False)


def _erase(gray: Tensor, draws: Tensor, section: AugmentSection) -> Tensor:
    """Cover one box with mid-gray in a share of the images."""
    if section.erasing == 0.0:
        return gray
    size = gray.shape[-1]
    low, high = _ERASE_AREA
    area = (low + (high - low) * draws[:, _COLUMN["erase_area"]]) * size * size
    log_low, log_high = np.log(_ERASE_ASPECT)
    aspect = torch.exp(log_low + (log_high - log_low) * draws[:, _COLUMN["erase_aspect"]])
    height, width = torch.sqrt(area * aspect), torch.sqrt(area / aspect)
    top = draws[:, _COLUMN["erase_y"]] * (size - height).clamp(min=0.0)
    left = draws[:, _COLUMN["erase_x"]] * (size - width).clamp(min=0.0)
    line = torch.arange(size, device=gray.device, dtype=gray.dtype)
    in_rows = (line >= top[:, None]) & (line < (top + height)[:, None])  # (B, H)
    in_columns = (line >= left[:, None]) & (line < (left + width)[:, None])  # (B, W)
    chosen = draws[:, _COLUMN["erase"]] < section.erasing  # (B,)
    box = in_rows[:, :, None] & in_columns[:, None, :] & chosen[:, None, None]
    return gray.masked_fill(box[:, None], 0.5)
