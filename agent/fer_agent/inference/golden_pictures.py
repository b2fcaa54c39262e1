"""The pictures of golden inputs: two public-domain portraits and drawn patterns.

None comes from a data set, so they may be distributed with every model.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_agent.assets.portraits import COLLINS, HOPPER, Person, Pose, Scene, read_cut_out
from fer_agent.vision.crop import crop_faces
from fer_agent.vision.records import Luma

_BEHIND = 128
"""Gray behind the cut-out portraits."""

_MULTIPLE = 32
"""Height and width of a detector's input are multiples of it."""

_FRAMINGS = ((0.0, 0.0, 1.1), (0.08, -0.05, 1.0), (-0.06, 0.07, 1.3), (0.0, 0.1, 0.85))
"""Shift right and down, and size of the face's box, in widths of the face."""


def gray_crops(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return 24 gray crops as a classifier takes them: sixteen of faces, eight patterns.

    Args:
        size: height and width in pixels.

    Returns:
        uint8 (24, 1, h, w), the same at every call.
    """
    faces = [_faces(person, size) for person in (COLLINS, HOPPER)]
    return np.concatenate([*faces, _patterns(size)[:, np.newaxis]])


def scene(long_side: int) -> NDArray[np.float32]:
    """Return a picture of both people as a face detector takes it.

    Args:
        long_side: its width in pixels, a multiple of 32.

    Returns:
        float32 (1, 3, H, W), BGR in 0 to 255, H about three quarters of W.
    """
    width, height = long_side, max(_MULTIPLE, round(long_side * 3 / 4) // _MULTIPLE * _MULTIPLE)
    picture = Scene().draw_people(
        [(COLLINS, Pose(190.0, 240.0, 120.0)), (HOPPER, Pose(450.0, 240.0, 120.0))]
    )
    scaled = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis], np.float32)


def _faces(person: Person, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Cut the face in each framing; then mirrored, dark, pale and blurred."""
    x, y = person.face_xy
    boxes = []
    for right, down, share in _FRAMINGS:
        half = 0.5 * share * person.face_px
        left, top = x + right * person.face_px - half, y + down * person.face_px - half
        boxes.append((left, top, left + 2 * half, top + 2 * half))
    crops = crop_faces(_luma(person), np.array(boxes, np.float32), size)
    first = crops[:1]
    blurred = cv2.blur(first[0, 0], (5, 5))[np.newaxis, np.newaxis]
    return np.concatenate([crops, first[..., ::-1], first // 3, 255 - (255 - first) // 3, blurred])


def _luma(person: Person) -> Luma:
    """Return a portrait in gray, over gray."""
    picture = read_cut_out(person.file).astype(np.float32)
    gray = picture[..., :3] @ np.array([0.114, 0.587, 0.299], np.float32)
    luma: Luma = np.rint(gray + _BEHIND * (1 - picture[..., 3] / 255)).astype(np.uint8)
    return luma


def _patterns(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return uint8 (8, h, w): black, gray, white; slope, edge, stripes, squares, dust."""
    height, width = size
    y, x = np.indices(size)
    slope = (255 * (x + y)) // (height + width - 2)
    patterns = [
        np.zeros(size),
        np.full(size, 128),
        np.full(size, 255),
        slope,
        # Of little contrast: INT8 is calibrated on faces, and clips values far from them.
        64 + 128 * (2 * x >= width),
        96 + 64 * (y // 4 % 2),
        96 + 64 * ((x // 6 + y // 6) % 2),
        # Arithmetic, because numpy's generators promise no equal numbers across versions.
        96 + (x * x * 37 + y * y * 101 + x * y * 59) % 61,
    ]
    return np.stack(patterns).astype(np.uint8)
