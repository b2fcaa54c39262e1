"""The view of the training images that an epoch takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fer_trainer.recipe import AugmentSection


@dataclass(frozen=True, slots=True)
class TrainingView:
    """The view of the training images that an epoch takes.

    Attributes:
        seed: of its draws.
        number: of its draws; the epoch, or the view's number in a targets file.
        augment: how strongly it differs from the images.
    """

    seed: int
    number: int
    augment: AugmentSection
