"""Construction of the network that a recipe names, for plain gray pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from fer_trainer.data.faceset import SIZE_PX
from fer_trainer.errors import RecipeError
from fer_trainer.networks import compact, mobileface
from fer_trainer.networks.student import Student
from fer_trainer.networks.weights import VGGFACE2_MEAN, VGGFACE2_STD, load_run, load_vggface2
from fer_trainer.networks.zoo import IMAGENET_MEAN, IMAGENET_STD, make_body

if TYPE_CHECKING:
    from pathlib import Path

    from fer_trainer.recipe import NetworkSection

_OWNERS = {"vggface2": "resnet50", "mobileface": "mobileface"}
"""Networks that published weights are of."""

_WITHOUT_IMAGENET = ("student", "mobileface", *compact.MAKERS)

MEAN, STD = 0.5077, 0.2550
"""Of FER2013's 28,709 training images with pixels in [0, 1]."""


class GrayNetwork(nn.Module):
    """A network with its own normalisation.

    Args:
        body: takes normalised pixels (B, K, S, S), returns logits (B, C).
        mean: K channel means of pixels in [0, 1].
        std: K channel deviations.
        input_px: S; crops of another size are scaled to it.
    """

    def __init__(
        self,
        body: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        input_px: int = SIZE_PX,
    ) -> None:
        super().__init__()
        self.body = body
        self.input_px = input_px
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, gray: Tensor) -> Tensor:
        """Turn gray crops with values in [0, 1], (B, 1, 48, 48), into logits (B, C)."""
        if self.input_px != SIZE_PX:
            size = (self.input_px, self.input_px)
            gray = F.interpolate(gray, size, mode="bilinear")
        return self.body((gray - self.mean) / self.std)  # type: ignore[no-any-return]  # torch modules return Any


def build_network(
    section: NetworkSection, classes: int, weights: Path | None = None
) -> GrayNetwork:
    """Make the network a recipe names, with the weights it names.

    Args:
        section: the recipe's.
        classes: number of outputs.
        weights: the file, for the weights `vggface2`, `mobileface` and `run`.

    Raises:
        CheckpointError: the file is missing or does not fit.
        DownloadError: ImageNet weights cannot be fetched.
        RecipeError: the network and the weights do not go together.
    """
    owner = _OWNERS.get(section.weights, section.name)
    if section.name != owner:
        raise RecipeError(
            f"there are no {section.weights} weights for {section.name}",
            remedy=f'use network.name = "{owner}"',
        )
    if section.weights == "imagenet" and section.name in _WITHOUT_IMAGENET:
        raise RecipeError(
            f"there are no ImageNet weights for {section.name}",
            remedy='use network.weights = "scratch"',
        )
    network = _without_weights(section, classes)
    if section.weights in {"scratch", "imagenet"}:
        return network
    if weights is None:
        raise RecipeError(
            f'network.weights = "{section.weights}" needs a file', remedy="give it as --weights"
        )
    if section.weights == "vggface2":
        load_vggface2(network.body, weights)
    elif section.weights == "mobileface":
        mobileface.load_published(cast("mobileface.MobileFace", network.body), weights)
    else:
        load_run(network, weights, section.name)
    return network


def rebuild_network(section: NetworkSection, classes: int) -> GrayNetwork:
    """Make the network of a checkpoint, whose weights come from there; nothing is fetched."""
    kept = "vggface2" if section.weights == "vggface2" else "scratch"  # it changes the graph
    return _without_weights(section.model_copy(update={"weights": kept}), classes)


def _without_weights(section: NetworkSection, classes: int) -> GrayNetwork:
    body, mean, std = _body(section, classes)
    return GrayNetwork(body, mean, std, input_px=section.input_px)


def _body(
    section: NetworkSection, classes: int
) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """Make the network itself, with its channel means and deviations."""
    if section.name == "student":
        student = Student(
            classes,
            strides=section.strides,
            reduction=section.reduction,
            hidden=section.hidden,
            dropout=section.dropout,
            multiplier=section.multiplier,
            norm_momentum=section.norm_momentum,
        )
        return student, (MEAN,), (STD,)
    if section.name in compact.MAKERS:
        body = compact.MAKERS[section.name](classes, width=section.width, dropout=section.dropout)
        return body, (MEAN,), (STD,)
    if section.name == "mobileface":
        face = mobileface.MobileFace(classes, dropout=section.dropout)
        return face, mobileface.MEAN, mobileface.STD
    vggface2 = section.weights == "vggface2"
    mean, std = (VGGFACE2_MEAN, VGGFACE2_STD) if vggface2 else (IMAGENET_MEAN, IMAGENET_STD)
    return make_body(section, classes), mean, std
