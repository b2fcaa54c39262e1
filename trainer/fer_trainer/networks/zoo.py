"""Torchvision's networks for gray 48x48 crops, the rows of Table 1 and the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from torch import nn
from torchvision import models

from fer_agent.errors import DownloadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_trainer.recipe import NetworkSection

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_MAKERS: dict[str, Callable[..., nn.Module]] = {
    "vgg13": models.vgg13_bn,
    "resnet50": models.resnet50,
    "efficientnet-b0": models.efficientnet_b0,
    "mobilenet-v2": models.mobilenet_v2,
    "shufflenet-v2": models.shufflenet_v2_x1_0,
    "mobilenet-v3-small": models.mobilenet_v3_small,
}


def make_body(section: NetworkSection, classes: int) -> nn.Module:
    """Make a torchvision network with a new last layer.

    Raises:
        DownloadError: ImageNet weights are wanted and cannot be fetched.
    """
    weights = "DEFAULT" if section.weights == "imagenet" else None
    try:
        network = _MAKERS[section.name](weights=weights)
    except (URLError, OSError) as error:
        raise DownloadError(
            f"ImageNet weights for {section.name} could not be fetched: {error}",
            remedy='go online once, or set network.weights = "scratch"',
        ) from error
    _replace_last(network, section, classes)
    if section.weights == "vggface2":
        _stride_first(network)
    return network


def _replace_last(network: nn.Module, section: NetworkSection, classes: int) -> None:
    if section.name == "vgg13":
        # 48 pixels leave a 1x1 map: spread to 7x7 it would feed 120 million weights with copies.
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Sequential(nn.Dropout(section.dropout), nn.Linear(512, classes))
        return
    head: Any = getattr(network, "fc", None) or network.classifier
    last: Any = head[-1] if isinstance(head, nn.Sequential) else head
    fresh = nn.Linear(int(last.in_features), classes)
    if isinstance(head, nn.Sequential):
        head[-1] = fresh
    else:
        network.fc = fresh


def _stride_first(network: nn.Module) -> None:
    """Shrink in a bottleneck's first convolution and pool without padding, as VGGFace2's did."""
    network.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=True)
    for layer in (network.layer2, network.layer3, network.layer4):
        block: Any = layer[0]  # type: ignore[index]  # a Sequential of blocks
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
