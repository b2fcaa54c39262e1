"""The built-in clip: a number of the demo's portraits, decoded as a USB camera's pictures."""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_agent.assets.portraits import COLLINS, HOPPER, WIDTH, Person, Pose, Scene
from fer_agent.camera.backends.replay import make_frame
from fer_agent.vision.records import Frame

MOST_FACES: Final = 8
FPS: Final = 30.0
PICTURES: Final = 60
"""Pictures of one round, two seconds; people sway in whole periods, without a jump."""

_QUALITY = 90
_SWAY_PX = 14
_NOD_PX = 5


class CrowdSource:
    """Plays the crowd in a loop, as fast as frames are taken; a `FrameSource`.

    Pictures wait as JPEG and are decoded when they are read, as those of a USB camera are.

    Args:
        faces: number of people, 0 to `MOST_FACES`.
    """

    def __init__(self, faces: int) -> None:
        self._faces = faces
        self._number = 0
        self._pictures: list[NDArray[np.uint8]] = []

    def open(self) -> None:
        """Draw all pictures.

        Raises:
            CameraError: a picture of the package is missing or cannot be decoded.
        """
        scene = Scene()
        self._pictures = [_encode(scene, self._faces, number) for number in range(PICTURES)]

    def read(self) -> Frame:
        """Decode the next picture; its time is its place in a clip of 30 a second."""
        encoded = self._pictures[self._number % PICTURES]
        self._number += 1
        image = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
        return make_frame(image, round(self._number / FPS * 1e9), self._number)

    def close(self) -> None:
        """Free the pictures."""
        self._pictures = []


def poses(faces: int, number: int) -> list[tuple[Person, Pose]]:
    """Return the people of picture `number` with their poses: one row up to three, else two."""
    rows = [faces] if faces <= 3 else [math.ceil(faces / 2), faces // 2]
    heights = [215.0] if len(rows) == 1 else [110.0, 345.0]
    size_px = 120.0 if faces <= 2 else 84.0 if faces <= 4 else 66.0  # so many fit side by side
    placed = []
    for row, count in enumerate(rows):
        for place in range(count):
            person = (COLLINS, HOPPER)[(place + row) % 2]
            turn = 2 * math.pi * (number / PICTURES + (place + row / 2) / max(count, 1))
            x = WIDTH * (place + 0.5) / count + _SWAY_PX * math.sin(turn)
            y = heights[row] + _NOD_PX * math.sin(2 * turn)
            placed.append((person, Pose(x, y, size_px)))
    return placed


def _encode(scene: Scene, faces: int, number: int) -> NDArray[np.uint8]:
    image = scene.draw_people(poses(faces, number))
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return np.asarray(encoded, np.uint8)
