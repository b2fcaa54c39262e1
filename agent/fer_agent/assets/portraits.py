"""Two public-domain portraits, and the drawing of scenes with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_agent.errors import CameraError

Bgr = NDArray[np.uint8]

WIDTH, HEIGHT = 640, 480
"""Size of the drawn picture in pixels."""


@dataclass(frozen=True, slots=True)
class Person:
    """A cut-out portrait and the place of its face.

    Attributes:
        name: for tests and captions.
        file: BGRA picture in this folder.
        face_xy: centre of the face in the picture, pixels.
        face_px: width of the face in the picture, as the Haar cascade measures it.
        size_px: mean width of the face in the scene.
        stage_y: height of the face's centre in the scene; low enough that the shoulders always
            reach the lower edge.
    """

    name: str
    file: str
    face_xy: tuple[float, float]
    face_px: float
    size_px: float
    stage_y: float


@dataclass(frozen=True, slots=True)
class Pose:
    """A face's centre and width at one moment, in pixels of the scene."""

    x: float
    y: float
    size_px: float


COLLINS = Person("Eileen Collins", "eileen-collins.webp", (204.5, 113.5), 95, 116, 215)
HOPPER = Person("Grace Hopper", "grace-hopper.webp", (159.3, 140.4), 144, 140, 275)


class Scene:
    """A backdrop on which the portraits are drawn."""

    def __init__(self) -> None:
        """Read the portraits.

        Raises:
            CameraError: a picture of the package is missing or cannot be decoded.
        """
        self._pictures = {person.name: read_cut_out(person.file) for person in (COLLINS, HOPPER)}
        self._backdrop = _draw_backdrop()

    def draw_people(self, people: Sequence[tuple[Person, Pose]]) -> Bgr:
        """Draw persons in their poses, those in front last; uint8 (480, 640, 3), a new array."""
        image = self._backdrop.copy()
        for person, pose in people:
            _paste(image, self._pictures[person.name], person, pose)
        return image


def read_cut_out(file: str) -> Bgr:
    """Return a portrait as uint8 (H, W, 4), colours multiplied by alpha.

    Raises:
        CameraError: the picture is missing or cannot be decoded.
    """
    path = Path(__file__).parent / file
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape[2:] != (4,):
        raise CameraError(f"cannot read the demo's portrait {path}", remedy="reinstall fer-agent")
    alpha = picture[:, :, 3:].astype(np.uint16)
    picture[:, :, :3] = picture[:, :, :3] * alpha // 255
    return picture.astype(np.uint8, copy=False)


def _draw_backdrop() -> Bgr:
    """Draw a wall lit from above, without edges that a detector could take for a face."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    light = np.exp(-(((x - 330) / 420) ** 2 + ((y - 130) / 330) ** 2))[:, :, np.newaxis]
    dark, bright = np.array((96, 74, 62)), np.array((196, 178, 160))
    wall: NDArray[np.float64] = dark + light * (bright - dark)
    return wall.round().astype(np.uint8)


def _paste(image: Bgr, picture: Bgr, person: Person, pose: Pose) -> None:
    """Draw a premultiplied portrait over the image, with its face in the pose."""
    scale = pose.size_px / person.face_px
    left, top = pose.x - person.face_xy[0] * scale, pose.y - person.face_xy[1] * scale
    height, width = picture.shape[0] * scale, picture.shape[1] * scale
    x0, x1 = max(0, math.floor(left)), min(WIDTH, math.ceil(left + width))
    y0, y1 = max(0, math.floor(top)), min(HEIGHT, math.ceil(top + height))
    if x0 >= x1 or y0 >= y1:
        return
    move = np.array([[scale, 0, left - x0], [0, scale, top - y0]])
    moved = cv2.warpAffine(picture, move, (x1 - x0, y1 - y0))
    behind = cv2.merge([255 - moved[:, :, 3]] * 3)
    region = image[y0:y1, x0:x1]
    np.add(moved[:, :, :3], cv2.multiply(region, behind, scale=1 / 255), out=region)
