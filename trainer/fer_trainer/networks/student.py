"""The student network, MobileNetV3-Small for 48x48 gray with an SE block and a 256-unit head.

The backbone is MobileNetV3-Small (Howard et al., arXiv:1905.02244, table 2) from torchvision's
blocks; the SE block on its 576 channels follows Hu et al., arXiv:1709.01507. Parameters in the
paper and here: backbone 0.93 M (927,008 with three input channels; 926,720 with one),
SE 2*C*C/4 = 165,888 weights (166,608 with biases; the paper's breakdown says 0.12 M), head 149,511
for seven classes, together 1,242,839: the larger of the paper's two totals, 1.18 M and 1.24 M.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torchvision.models.mobilenetv3 import InvertedResidual, InvertedResidualConfig
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

if TYPE_CHECKING:
    from collections.abc import Sequence

_GROWTH = 6
"""Channels of the last convolution in those of the last block: 576 of 96."""

_STEM = 16

# Table 2 of the MobileNetV3 paper: kernel, expanded, out, SE, activation. A row in _STRIDED takes
# its stride from the setting, the others have 1.
_BLOCKS = (
    (3, 16, 16, True, "RE"),
    (3, 72, 24, False, "RE"),
    (3, 88, 24, False, "RE"),
    (5, 96, 40, True, "HS"),
    (5, 240, 40, True, "HS"),
    (5, 240, 40, True, "HS"),
    (5, 120, 48, True, "HS"),
    (5, 144, 48, True, "HS"),
    (5, 288, 96, True, "HS"),
    (5, 576, 96, True, "HS"),
    (5, 576, 96, True, "HS"),
)
_STRIDED = (0, 1, 3, 8)


class Student(nn.Module):
    """The network that runs on the device.

    Args:
        classes: number of outputs.
        strides: of the stem and of the four blocks that shrink the map; (2, 2, 2, 2, 2) is the
            published network and leaves 2x2 of 48x48, (1, 2, 2, 2, 2) leaves 3x3.
        reduction: r of the SE block; 0 leaves the block out.
        hidden: units of the layer before the last.
        dropout: before the last layer.
        multiplier: of the backbone's channels, which stay multiples of 8; 1 is the published width.
        norm_momentum: of batch normalisation. torchvision's 0.01 suits ImageNet's long epochs;
            with 225 steps an epoch its running statistics lag the weights, so ours is 0.1.
    """

    def __init__(
        self,
        classes: int,
        *,
        strides: Sequence[int] = (2, 2, 2, 2, 2),
        reduction: int = 4,
        hidden: int = 256,
        dropout: float = 0.4,
        multiplier: float = 1.0,
        norm_momentum: float = 0.1,
    ) -> None:
        super().__init__()
        scaled = partial(InvertedResidualConfig.adjust_channels, width_mult=multiplier)
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=norm_momentum)
        unit = partial(Conv2dNormActivation, norm_layer=norm, activation_layer=nn.Hardswish)
        stride_of = dict(zip(_STRIDED, strides[1:], strict=True))
        layers: list[nn.Module] = [unit(1, scaled(_STEM), kernel_size=3, stride=strides[0])]
        channels = _STEM
        for row, (kernel, expanded, out, squeeze, activation) in enumerate(_BLOCKS):
            stride = stride_of.get(row, 1)
            config = InvertedResidualConfig(
                channels, kernel, expanded, out, squeeze, activation, stride, 1, multiplier
            )
            layers.append(InvertedResidual(config, norm))
            channels = out
        last = _GROWTH * scaled(channels)
        layers.append(unit(scaled(channels), last, kernel_size=1))
        self.backbone = nn.Sequential(*layers)
        self.attention = SqueezeExcitation(last, last // reduction) if reduction else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(
            nn.Linear(last, hidden),
            nn.Hardswish(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        _initialise(self)

    def features(self, pixels: Tensor) -> Tensor:
        """Give the pooled features, (B, 576) at the published width."""
        maps = self.backbone(pixels)  # (B, 576, 2, 2) with strides of 2
        return self.pool(self.attention(maps)).flatten(1)  # type: ignore[no-any-return]  # torch modules return Any

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn normalised gray crops (B, 1, 48, 48) into logits (B, C)."""
        return self.head(self.features(pixels))  # type: ignore[no-any-return]  # torch modules return Any


def _initialise(network: nn.Module) -> None:
    """Initialise as torchvision does for MobileNetV3."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
            nn.init.zeros_(module.bias)
