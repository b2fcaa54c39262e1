"""The demo's stage: two real portraits that walk in, sway, leave and come back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer_agent.errors import CameraError
from fer_agent.records import Frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fer_agent.records import Bgr

WIDTH, HEIGHT = 640, 480
FPS = 20.0
"""Fast enough to look alive, slow enough to leave a small board its time for the networks."""

TOUR_S = 24.0
"""Everybody has come, gone, come back and gone again; the scene repeats after it."""

_WALK_S = 2.5
"""Seconds from outside the picture to the place in it, and back."""

_SIZE_SWING = 0.11
"""People come nearer and step back: the face's width changes by this share."""


@dataclass(frozen=True, slots=True)
class Person:
    """A cut-out portrait, and where its face is.

    Attributes:
        name: for tests and captions.
        file: BGRA picture among the demo's assets.
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
class Visit:
    """One entrance: who comes when, from which side, to which place, until when (seconds)."""

    person: Person
    start_s: float
    end_s: float
    stage_x: float
    from_left: bool


@dataclass(frozen=True, slots=True)
class Pose:
    """Where a face is at one moment: its centre and width in pixels of the scene."""

    x: float
    y: float
    size_px: float


COLLINS = Person("Eileen Collins", "eileen-collins.webp", (204.5, 113.5), 95, 116, 215)
HOPPER = Person("Grace Hopper", "grace-hopper.webp", (159.3, 140.4), 144, 140, 275)

VISITS = (
    Visit(HOPPER, 3.0, 12.0, 478, from_left=False),
    Visit(COLLINS, 0.3, 10.0, 165, from_left=True),
    Visit(HOPPER, 15.5, 23.5, 160, from_left=True),
    Visit(COLLINS, 13.0, 22.5, 490, from_left=False),
)
"""In drawing order: of two whose shoulders meet, the later one stands in front."""


class Scene:
    """Draws any frame of the tour; the same number gives the same picture."""

    def __init__(self) -> None:
        """Read the portraits.

        Raises:
            CameraError: a picture of the package is missing or cannot be decoded.
        """
        self._pictures = {person.name: read_cut_out(person.file) for person in (COLLINS, HOPPER)}
        self._backdrop = _draw_backdrop()

    def draw(self, number: int) -> Bgr:
        """Draw frame `number`, counted from 0; uint8 (480, 640, 3), a new array."""
        return self.draw_people([(visit.person, pose) for visit, pose in poses(number)])

    def draw_people(self, people: Sequence[tuple[Person, Pose]]) -> Bgr:
        """Draw anybody anywhere, those in front last; uint8 (480, 640, 3), a new array."""
        image = self._backdrop.copy()
        for person, pose in people:
            _paste(image, self._pictures[person.name], person, pose)
        return image


class SceneSource:
    """The scene as a live camera: one picture every 1 / `FPS` seconds, then the end.

    A machine too slow to draw every picture misses some; people move at the same speed.
    """

    def __init__(self, seconds: float = TOUR_S) -> None:
        self._pictures = max(1, round(seconds * FPS))
        self._number = -1
        self._start_s = 0.0
        self._scene: Scene | None = None

    def open(self) -> None:
        """Read the portraits and start the clock.

        Raises:
            CameraError: a picture of the package is missing or cannot be decoded.
        """
        self._scene = Scene()
        self._number = -1
        self._start_s = time.monotonic()

    def read(self) -> Frame | None:
        """Wait for the next picture's time and draw it; None at the end.

        Raises:
            CameraError: read before `open`.
        """
        if self._scene is None:
            raise CameraError("the demo scene is not open", remedy="open it before reading")
        self._number = max(self._number + 1, int((time.monotonic() - self._start_s) * FPS))
        if self._number >= self._pictures:
            return None
        time.sleep(max(0.0, self._start_s + self._number / FPS - time.monotonic()))
        image = self._scene.draw(self._number)
        return Frame(
            luma=cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False),
            captured_ns=time.monotonic_ns(),
            number=self._number,
            to_bgr=lambda: image,
        )

    def close(self) -> None:
        """Let the portraits go."""
        self._scene = None


def poses(number: int) -> list[tuple[Visit, Pose]]:
    """Return who is in frame `number` and where, in drawing order; some may be half outside."""
    now_s = number / FPS % TOUR_S
    return [
        (visit, _pose(visit, now_s)) for visit in VISITS if visit.start_s <= now_s < visit.end_s
    ]


def _pose(visit: Visit, now_s: float) -> Pose:
    person = visit.person
    since_s = now_s - visit.start_s
    there = _ease(since_s / _WALK_S) * _ease((visit.end_s - now_s) / _WALK_S)
    sway = math.sin(2 * math.pi * since_s / 5.0)
    nod = math.sin(2 * math.pi * since_s / 2.6)
    nearer = 1 + _SIZE_SWING * math.sin(2 * math.pi * since_s / 6.4)
    outside_x = _outside_x(visit)
    return Pose(
        x=outside_x + there * (visit.stage_x - outside_x + 28 * sway),
        y=person.stage_y + 8 * nod,
        size_px=person.size_px * nearer,
    )


def _outside_x(visit: Visit) -> float:
    """Return how far off the face's centre must be for the shoulders to be out of the picture."""
    half_body_px = 215 * visit.person.size_px * (1 + _SIZE_SWING) / visit.person.face_px
    return -half_body_px if visit.from_left else WIDTH + half_body_px


def _ease(share: float) -> float:
    """Go smoothly from 0 to 1 (smoothstep); constant outside."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)


def read_cut_out(file: str) -> Bgr:
    """Return a portrait as uint8 (H, W, 4), colours multiplied by alpha.

    Raises:
        CameraError: the picture is missing or cannot be decoded.
    """
    path = Path(__file__).parent / "demo_assets" / file
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.shape[2:] != (4,):
        raise CameraError(f"cannot read the demo's portrait {path}", remedy="reinstall fer-agent")
    alpha = picture[:, :, 3:].astype(np.uint16)
    picture[:, :, :3] = picture[:, :, :3] * alpha // 255
    return picture.astype(np.uint8, copy=False)


def _draw_backdrop() -> Bgr:
    """Draw a wall lit from above, without an edge that a detector could take for a face."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    light = np.exp(-(((x - 330) / 420) ** 2 + ((y - 130) / 330) ** 2))[:, :, np.newaxis]
    dark, bright = np.array((96, 74, 62)), np.array((196, 178, 160))
    wall: NDArray[np.float64] = dark + light * (bright - dark)
    return wall.round().astype(np.uint8)


def _paste(image: Bgr, picture: Bgr, person: Person, pose: Pose) -> None:
    """Lay a premultiplied portrait over the image, so that its face takes the pose."""
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
