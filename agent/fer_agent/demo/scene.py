"""The demo's scene of two real portraits that walk in, sway, leave and come back."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import cv2
import numpy as np

from fer_agent.assets.portraits import COLLINS, HOPPER, WIDTH, Person, Pose, Scene
from fer_agent.errors import CameraError
from fer_agent.vision.records import Bgr, Frame

FPS = 20.0
"""Rate that looks alive and leaves a small board time for the networks."""

TOUR_S = 24.0
"""Time in which both persons come and go twice; the scene then repeats."""

_WALK_S = 2.5
"""Seconds from outside the picture to the place in it, and back."""

_SIZE_SWING = 0.11
"""Share by which a face's width changes as people step nearer and back."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One person's visit: times in seconds, side of the entrance, and place."""

    person: Person
    start_s: float
    end_s: float
    stage_x: float
    from_left: bool


VISITS = (
    Visit(HOPPER, 3.0, 12.0, 478, from_left=False),
    Visit(COLLINS, 0.3, 10.0, 165, from_left=True),
    Visit(HOPPER, 15.5, 23.5, 160, from_left=True),
    Visit(COLLINS, 13.0, 22.5, 490, from_left=False),
)
"""In drawing order: of two whose shoulders meet, the later one stands in front."""


class Tour(Scene):
    """The tour's frames; the same number gives the same picture."""

    def draw(self, number: int) -> Bgr:
        """Draw frame `number`, counted from 0; uint8 (480, 640, 3), a new array."""
        return self.draw_people([(visit.person, pose) for visit, pose in poses(number)])


class SceneSource:
    """The scene as a live camera: one picture every 1 / `FPS` seconds, then the end.

    A machine too slow to draw every picture misses some; people move at the same speed.
    """

    def __init__(self, seconds: float = TOUR_S) -> None:
        self._pictures = max(1, round(seconds * FPS))
        self._number = -1
        self._start_s = 0.0
        self._scene: Tour | None = None

    def open(self) -> None:
        """Read the portraits and start the clock."""
        self._scene = Tour()
        self._number = -1
        self._start_s = time.monotonic()

    def read(self) -> Frame | None:
        """Wait for the next picture's time and draw it; return None at the end."""
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
        """Free the portraits."""
        self._scene = None


def poses(number: int) -> list[tuple[Visit, Pose]]:
    """Return the visits in frame `number` and their poses, in drawing order."""
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
    """Return the face's centre at which the shoulders are out of the picture."""
    half_body_px = 215 * visit.person.size_px * (1 + _SIZE_SWING) / visit.person.face_px
    return -half_body_px if visit.from_left else WIDTH + half_body_px


def _ease(share: float) -> float:
    """Return the smoothstep of a share, constant outside of 0 to 1."""
    share = min(max(share, 0.0), 1.0)
    return share * share * (3 - 2 * share)
