"""Evaluation protocols, the crops of an image and the mean of their probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import cv2
import numpy as np

from fer_trainer.data.faceset import SIZE_PX

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_trainer.data.faceset import Float32Array, UInt8Array

    Predictor: TypeAlias = Callable[[UInt8Array], Float32Array]

Protocol: TypeAlias = Literal["single", "flip", "ten-crop"]

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_CROP_PX = 44
"""Side of the ten crops; shares of 48 as published for FER2013 by its VGG and ResNet baselines."""


def answers(predict: Predictor, images: UInt8Array, protocol: Protocol) -> Float32Array:
    """Give probabilities under a protocol.

    Args:
        predict: uint8 crops (N, 48, 48) to probabilities (N, C).
        images: uint8 (N, 48, 48).
        protocol: `single`, the image; `flip`, the mean with its mirror image; `ten-crop`, the mean
            over five 44x44 crops, scaled up, and their mirror images.

    Returns:
        float32 (N, C), rows sum to 1.
    """
    views = [images]
    if protocol == "ten-crop":
        edge = SIZE_PX - _CROP_PX
        corners = ((0, 0), (0, edge), (edge, 0), (edge, edge), (edge // 2, edge // 2))
        views = [_enlarged(images, top, left) for top, left in corners]
    if protocol != "single":
        views += [np.ascontiguousarray(view[:, :, ::-1]) for view in views]
    mean: Float32Array = np.mean([predict(view) for view in views], axis=0)
    return mean


def _enlarged(images: UInt8Array, top: int, left: int) -> UInt8Array:
    parts = images[:, top : top + _CROP_PX, left : left + _CROP_PX]
    size = (SIZE_PX, SIZE_PX)
    scaled = [cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) for part in parts]
    return np.stack(scaled).astype(np.uint8)
