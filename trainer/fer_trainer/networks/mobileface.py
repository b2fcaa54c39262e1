"""MobileFace V2, a small face-identification network, with a head for expressions.

Architecture and published weights: becauseofAI/MobileFace, MIT; 112x112 aligned faces, 99.65 % on
LFW by its authors. Its inverted residuals follow MobileNetV2 (Sandler et al., arXiv:1801.04381).
Gray crops are enlarged twice, because 96 pixels leave it the map sizes that it was trained with.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from fer_trainer.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    _Arrays: TypeAlias = dict[str, NDArray[np.float32]]

MEAN, STD = (0.5, 0.5, 0.5), (128 / 255, 128 / 255, 128 / 255)
"""The published network takes (pixel - 127.5) / 128, blue, green, red."""

_STEM = 32
_STAGES = (32, 32, 64, 128)
"""Channels out of each stage."""

_BLOCKS = 3
"""Of each stage; the first halves the map."""

_EXPANSION = 3

_ENLARGE = 2
_NEW_CHANNELS = 512
_NORM_EPS = 1e-3
"""MXNet's default, which the published network has."""

_LIST_MAGIC = 0x112
_ARRAY_MAGIC = 0xF993FAC9
_FLOAT32 = 0


class _Block(nn.Module):
    """Expand, filter by channel, project; the input is added where shapes allow."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        expanded = _EXPANSION * channels
        self.expand = nn.Conv2d(channels, expanded, 1, bias=False)
        self.expand_norm = nn.BatchNorm2d(expanded, eps=_NORM_EPS)
        self.filter = nn.Conv2d(expanded, expanded, 3, stride, 1, groups=expanded, bias=False)
        self.filter_norm = nn.BatchNorm2d(expanded, eps=_NORM_EPS)
        self.project = nn.Conv2d(expanded, out, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(out, eps=_NORM_EPS)
        self._adds = stride == 1 and channels == out

    def forward(self, maps: Tensor) -> Tensor:
        wide = F.relu6(self.expand_norm(self.expand(maps)))
        wide = F.relu6(self.filter_norm(self.filter(wide)))
        narrow: Tensor = self.project_norm(self.project(wide))
        return maps + narrow if self._adds else narrow


class MobileFace(nn.Module):
    """The published convolutions with a new head.

    Args:
        classes: number of outputs.
        dropout: before the last layer.
    """

    def __init__(self, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2, 1)
        self.stem_norm = nn.BatchNorm2d(_STEM, eps=_NORM_EPS)
        blocks, channels = [], _STEM
        for out in _STAGES:
            for number in range(_BLOCKS):
                blocks.append(_Block(channels, out, 1 if number else 2))
                channels = out
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.Conv2d(channels, _NEW_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(_NEW_CHANNELS),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(_NEW_CHANNELS, classes),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn normalised crops (B, 1 or 3, 48, 48) into logits (B, C)."""
        large = F.interpolate(pixels, scale_factor=_ENLARGE, mode="bilinear")
        large = large.expand(-1, 3, -1, -1)  # gray crops arrive with one channel
        maps = F.relu6(self.stem_norm(self.stem(large)))
        return self.head(self.blocks(maps))  # type: ignore[no-any-return]  # torch modules return Any


def load_published(network: MobileFace, path: Path) -> None:
    """Put the published `.params` file into a network, besides its head.

    Raises:
        CheckpointError: the file is missing, broken or of another network.
    """
    try:
        arrays = _read_params(path)
        _put_conv(network.stem, arrays, "conv1")
        _put_norm(network.stem_norm, arrays, "bn1")
        number = 0
        for block in network.blocks:
            for part in ("expand", "filter", "project"):
                _put_conv(getattr(block, part), arrays, f"convolution{number}")
                _put_norm(getattr(block, f"{part}_norm"), arrays, f"batchnorm{number}")
                number += 1
    except (OSError, ValueError, KeyError, RuntimeError, struct.error) as error:
        raise CheckpointError(
            f"{path} is not MobileFace V2's weights: {error}",
            remedy="give MobileFace_Identification_V2-0000.params as published",
        ) from error


def _put_conv(layer: nn.Conv2d, arrays: _Arrays, name: str) -> None:
    layer.weight.data.copy_(torch.from_numpy(arrays[f"arg:{name}_weight"]))
    if layer.bias is not None:
        layer.bias.data.copy_(torch.from_numpy(arrays[f"arg:{name}_bias"]))


def _put_norm(layer: nn.BatchNorm2d, arrays: _Arrays, name: str) -> None:
    layer.weight.data.copy_(torch.from_numpy(arrays[f"arg:{name}_gamma"]))
    layer.bias.data.copy_(torch.from_numpy(arrays[f"arg:{name}_beta"]))
    for own, theirs in (("running_mean", "moving_mean"), ("running_var", "moving_var")):
        getattr(layer, own).copy_(torch.from_numpy(arrays[f"aux:{name}_{theirs}"]))


def _read_params(path: Path) -> _Arrays:
    """Read MXNet's NDArray list file; layout: `NDArray::Save` in mxnet/src/ndarray/ndarray.cc."""
    raw = path.read_bytes()
    at = 0

    def take(form: str) -> tuple[int, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{form}", raw, at)
        at += struct.calcsize(f"<{form}")
        return values

    magic, _, count = take("QQQ")
    if magic != _LIST_MAGIC:
        raise ValueError("it is no MXNet list of arrays")
    arrays = []
    for _ in range(count):
        array_magic, _, dimensions = take("IiI")
        shape = take(f"{dimensions}q")
        _, _, kind = take("iii")
        if array_magic != _ARRAY_MAGIC or kind != _FLOAT32:
            raise ValueError("it holds arrays of another kind")
        size = int(np.prod(shape))
        arrays.append(np.frombuffer(raw, "<f4", size, at).reshape(shape).copy())
        at += 4 * size
    (named,) = take("Q")
    names = []
    for _ in range(named):
        (length,) = take("Q")
        names.append(raw[at : at + length].decode())
        at += length
    return dict(zip(names, arrays, strict=True))
