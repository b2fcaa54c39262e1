"""A camera's faults as augmentation.

Dim light, blur, noise, few pixels and JPEG, batched on the device. They are drawn like the other
views, from numbers that every device draws alike.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own convention

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_trainer.recipe import AugmentSection

DRAWS = (
    "light", "light_power", "blur", "blur_share", "noise", "noise_tile", "noise_level",
    "resample", "resample_side", "jpeg", "jpeg_quality",
)  # fmt: skip
"""Columns of a view's draws that are used here."""

_LIGHT_POWER = (1.0, 2.5)
"""Exponents on pixels in [0, 1]: 1 leaves the picture, 2.5 makes mid-gray a fifth of white."""

_NOISE_LEVEL = (0.01, 0.08)
"""Standard deviations in [0, 1]: a small sensor in daylight, and in a room in the evening."""

_NOISE_TILES = 256

_SIDES = (20, 28, 36)
"""Pixels that a small face has before the crop enlarges it to 48."""

_QUALITY = (20.0, 90.0)
"""JPEG qualities, from a stream short of bandwidth to a good still."""

_BLOCK = 8

# Annex K.1 of ITU-T T.81, the luminance table that JPEG encoders scale by quality.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def degrade(gray: Tensor, column: Callable[[str], Tensor], section: AugmentSection) -> Tensor:
    """Apply a camera's faults to a share of the images, each by a separate switch.

    Args:
        gray: float32 (B, 1, H, W) in [0, 1]; sides are multiples of 8.
        column: gives the images' draws by name, float32 (B, 1, 1, 1) in [0, 1), for `DRAWS`.
        section: `light`, `blur`, `noise`, `resample` and `jpeg` are shares of the images; 0 is off.

    Returns:
        float32 (B, 1, H, W) in [0, 1].
    """
    for name, fault in _FAULTS.items():
        share = float(getattr(section, name))
        if share > 0.0:
            gray = torch.where(column(name) < share, fault(gray, column), gray)
    return gray


def _light(gray: Tensor, column: Callable[[str], Tensor]) -> Tensor:
    power = _between(_LIGHT_POWER, column("light_power"))
    return gray.clamp(min=1e-6) ** power


def _blur(gray: Tensor, column: Callable[[str], Tensor]) -> Tensor:
    """Mix with a picture under a binomial kernel, whose deviation is one pixel."""
    blurred = F.pad(gray, (2, 2, 2, 2), mode="replicate")
    for axis in (-1, -2):  # shifted sums: on a CPU 17 times as fast as conv2d of one channel
        blurred = _binomial(blurred, axis)
    return torch.lerp(gray, blurred, column("blur_share").expand_as(gray))


def _noise(gray: Tensor, column: Callable[[str], Tensor]) -> Tensor:
    tiles = _noise_tiles(gray.shape[-2], gray.shape[-1], gray.device)
    chosen = tiles[(column("noise_tile").flatten() * _NOISE_TILES).long()]  # (B, 1, H, W)
    return (gray + chosen * _between(_NOISE_LEVEL, column("noise_level"))).clamp(0.0, 1.0)


def _resample(gray: Tensor, column: Callable[[str], Tensor]) -> Tensor:
    """Show the face with few pixels, enlarged again as the crop does it."""
    wanted = (column("resample_side") * len(_SIDES)).long()  # (B, 1, 1, 1)
    result = gray
    for number, side in enumerate(_SIDES):
        small = F.interpolate(gray, size=(side, side), mode="area")
        again = F.interpolate(small, size=gray.shape[-2:], mode="bilinear", align_corners=False)
        result = torch.where(wanted == number, again, result)
    return result


def _jpeg(gray: Tensor, column: Callable[[str], Tensor]) -> Tensor:
    """Quantise each block's cosine transform as a JPEG encoder does at a quality."""
    batch, _, height, width = gray.shape
    cosines, table = _cosines(gray.device), _table(gray.device)
    quality = _between(_QUALITY, column("jpeg_quality"))
    # libjpeg's jpeg_quality_scaling, in percent of the table.
    percent = torch.where(quality < 50.0, 5000.0 / quality, 200.0 - 2.0 * quality)
    steps = torch.round(table * percent / 100.0).clamp(1.0, 255.0)  # (B, 1, 8, 8)
    steps = steps.view(batch, 1, 1, _BLOCK, _BLOCK)
    blocks = gray.view(batch, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(2, 3)
    levels = blocks * 255.0 - 128.0  # (B, H/8, W/8, 8, 8)
    kept = torch.round(cosines @ levels @ cosines.T / steps) * steps
    pixels = (cosines.T @ kept @ cosines + 128.0) / 255.0
    return pixels.transpose(2, 3).reshape(gray.shape).clamp(0.0, 1.0)


_FAULTS = {
    "light": _light, "blur": _blur, "noise": _noise, "resample": _resample, "jpeg": _jpeg,
}  # fmt: skip


def _between(bounds: tuple[float, float], draw: Tensor) -> Tensor:
    low, high = bounds
    return low + (high - low) * draw


def _binomial(padded: Tensor, axis: int) -> Tensor:
    """Weigh five neighbours along an axis by 1, 4, 6, 4, 1 sixteenths."""
    length = padded.shape[axis] - 4
    far, near, own, near_too, far_too = (padded.narrow(axis, at, length) for at in range(5))
    return (far + far_too + 4.0 * (near + near_too) + 6.0 * own) / 16.0


@functools.lru_cache(maxsize=2)
def _noise_tiles(height: int, width: int, device: torch.device) -> Tensor:
    """Draw the tiles that noise is taken from, float32 (256, 1, H, W), deviation 1.

    Philox as for the draws: the same on every device.
    """
    generator = np.random.Generator(np.random.Philox(key=[0, 0]))
    tiles = generator.standard_normal((_NOISE_TILES, 1, height, width), dtype=np.float32)
    return torch.from_numpy(tiles).to(device)


@functools.lru_cache(maxsize=2)
def _cosines(device: torch.device) -> Tensor:
    """Make the orthonormal DCT-II matrix, (8, 8)."""
    row = torch.arange(_BLOCK, dtype=torch.float64).view(-1, 1)
    column = torch.arange(_BLOCK, dtype=torch.float64).view(1, -1)
    matrix = torch.cos(math.pi * (2.0 * column + 1.0) * row / (2.0 * _BLOCK))
    matrix *= math.sqrt(2.0 / _BLOCK)
    matrix[0] /= math.sqrt(2.0)
    return matrix.float().to(device)


@functools.lru_cache(maxsize=2)
def _table(device: torch.device) -> Tensor:
    return torch.tensor(_LUMINANCE, dtype=torch.float32, device=device)
