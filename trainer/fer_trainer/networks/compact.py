"""VGG and ResNet networks made for 48x48 gray crops.

ImageNet's networks shrink 32-fold, which leaves a single point or four of such a crop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, conv1x1
from torchvision.ops import Conv2dNormActivation

if TYPE_CHECKING:
    from collections.abc import Callable

_STAGES = 4
"""Each has twice the channels of the one before."""

_BLOCKS = 2
"""Convolutions of a VGG stage, residual blocks of a ResNet stage."""

_HIDDEN = 16
"""Units of VGG's hidden layer in units of the width: 1,024 at 64."""

_VGG_SIDE = 3
"""48 halved four times; larger inputs are averaged down to it."""


class Vgg48(nn.Module):
    """Four stages of two 3x3 convolutions and a pooling, then a hidden layer over the 3x3 map.

    Args:
        classes: number of outputs.
        width: channels of the first stage; 64 gives 9.4 million parameters.
        dropout: before and behind the hidden layer.

    Source: VGG (Simonyan and Zisserman, arXiv:1409.1556), as Khaireddin and Chen, arXiv:2105.03588,
    cut it down to FER2013, with batch normalisation.
    """

    def __init__(self, classes: int, *, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for stage in range(_STAGES):
            out = width * 2**stage
            for _ in range(_BLOCKS):
                layers.append(Conv2dNormActivation(channels, out, kernel_size=3))
                channels = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(_VGG_SIDE))
        hidden = _HIDDEN * width
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels * _VGG_SIDE**2, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        _initialise(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn normalised gray crops (B, 1, 48, 48) into logits (B, C)."""
        return self.head(self.features(pixels))  # type: ignore[no-any-return]  # torch modules return Any


class ResNet48(nn.Module):
    """ResNet-18's four stages behind a 3x3 stem that does not shrink; the last map is 6x6.

    Args:
        classes: number of outputs.
        width: channels of the first stage; 64 gives 11.2 million parameters.
        dropout: before the last layer.

    Source: He et al., arXiv:1512.03385, with the stem of its networks for 32x32 images.
    """

    def __init__(self, classes: int, *, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = [Conv2dNormActivation(1, width, kernel_size=3)]
        channels = width
        for stage in range(_STAGES):
            out = width * 2**stage
            for block in range(_BLOCKS):
                stride = 2 if stage and not block else 1
                layers.append(_residual(channels, out, stride))
                channels = out
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, classes))
        _initialise(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn normalised gray crops (B, 1, 48, 48) into logits (B, C)."""
        return self.head(self.features(pixels))  # type: ignore[no-any-return]  # torch modules return Any


MAKERS: dict[str, Callable[..., nn.Module]] = {"vgg-48": Vgg48, "resnet-48": ResNet48}
"""By their names in recipes."""


def _residual(channels: int, out: int, stride: int) -> BasicBlock:
    if stride == 1 and channels == out:
        return BasicBlock(channels, out)
    shortcut = nn.Sequential(conv1x1(channels, out, stride), nn.BatchNorm2d(out))
    return BasicBlock(channels, out, stride, shortcut)


def _initialise(network: nn.Module) -> None:
    """Initialise as torchvision does for its VGG and ResNet."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
