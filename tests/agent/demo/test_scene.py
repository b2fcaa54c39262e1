"""The demo's scene: drawn the same every time, and seen by the real stages as it is meant."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from fer_agent.assets import portraits
from fer_agent.assets.portraits import COLLINS, HEIGHT, WIDTH, read_cut_out
from fer_agent.config.model import DetectorConfig, TrackerConfig
from fer_agent.demo import scene as demo_scene
from fer_agent.demo.scene import FPS, TOUR_S, VISITS, SceneSource, Tour
from fer_agent.detector.haar import HaarDetector
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.errors import CameraError
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model, model_names
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.records import Frame
from fer_agent.vision.tracker import IouTracker

if TYPE_CHECKING:
    from pathlib import Path

    from fer_agent.vision.ports import FaceDetector

TOUR = range(round(TOUR_S * FPS))
STEPS = {"haar": 4, "yunet": 2}
"""Which pictures the tests look at: five or ten a second, as a slow board would."""


@pytest.fixture(scope="module")
def scene() -> Tour:
    return Tour()


def frame(scene: Tour, number: int) -> Frame:
    image = scene.draw(number)
    return Frame(
        luma=cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
        captured_ns=round(number / FPS * 1e9),
        number=number,
        to_bgr=lambda: image,
    )


def test_the_same_number_gives_the_same_picture(scene: Tour) -> None:
    picture = scene.draw(100)

    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(picture, Tour().draw(100))
    assert not np.array_equal(picture, scene.draw(101))
    assert np.array_equal(picture, scene.draw(100 + len(TOUR)))


def test_faces_keep_their_size_and_their_distance() -> None:
    for number in TOUR:
        poses = [pose for _, pose in demo_scene.poses(number)]
        assert all(90 <= pose.size_px <= 160 for pose in poses)
        if len(poses) == 2:
            apart = abs(poses[0].x - poses[1].x)
            assert apart > poses[0].size_px / 2 + poses[1].size_px / 2


def test_shoulders_reach_the_lower_edge() -> None:
    height_of = cache(lambda file: read_cut_out(file).shape[0])
    for number in TOUR:
        for visit, pose in demo_scene.poses(number):
            below = height_of(visit.person.file) - visit.person.face_xy[1]
            assert pose.y + below * pose.size_px / visit.person.face_px >= HEIGHT


def test_nobody_is_there_at_the_beginning_and_the_end(scene: Tour) -> None:
    for number in (0, TOUR[-1]):
        assert demo_scene.poses(number) == []
        assert np.array_equal(scene.draw(number), scene.draw_people([]))


def test_entrances_begin_outside_the_picture(scene: Tour) -> None:
    for visit in VISITS:
        alone = [(visit, pose) for who, pose in demo_scene.poses(_first(visit)) if who is visit]
        assert alone
        image = scene.draw_people([(visit.person, pose) for _, pose in alone])
        assert np.array_equal(image, scene.draw_people([]))


def _first(visit: demo_scene.Visit) -> int:
    return math.ceil(visit.start_s * FPS)


def test_the_source_plays_for_the_time_asked_and_numbers_its_pictures() -> None:
    source = SceneSource(seconds=0.5)
    source.open()
    started_s = time.monotonic()
    frames = []
    while (taken := source.read()) is not None:
        frames.append(taken)
    source.close()

    assert time.monotonic() - started_s >= 9 / FPS
    numbers = [taken.number for taken in frames]
    assert numbers == sorted(set(numbers))
    assert set(numbers) <= set(range(10))
    assert frames[0].bgr().shape == (HEIGHT, WIDTH, 3)
    assert np.array_equal(frames[-1].luma, cv2.cvtColor(frames[-1].bgr(), cv2.COLOR_BGR2GRAY))


def test_an_unopened_source_says_so() -> None:
    with pytest.raises(CameraError, match="not open"):
        SceneSource().read()


def test_a_missing_portrait_is_a_camera_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portraits, "COLLINS", replace(COLLINS, file="nobody.webp"))

    with pytest.raises(CameraError, match=r"nobody\.webp") as caught:
        Tour()

    assert caught.value.remedy


@pytest.mark.parametrize("backend", ["haar", "yunet"])
def test_every_entrance_is_one_track(
    backend: str, scene: Tour, request: pytest.FixtureRequest
) -> None:
    detector = make_detector(backend, request)
    tracker = IouTracker(TrackerConfig())
    seen: dict[int, set[tuple[str, float]]] = {}
    for number in TOUR[:: STEPS[backend]]:
        picture = frame(scene, number)
        tracks = tracker.update(detector.detect(picture), picture.captured_ns)
        for track_id, xyxy in zip(tracks.track_id, tracks.xyxy, strict=True):
            seen.setdefault(int(track_id), set()).add(who_is_there(number, xyxy))

    assert sorted(owner for owners in seen.values() for owner in owners) == sorted(
        (visit.person.name, visit.start_s) for visit in VISITS
    )
    assert len(seen) == len(VISITS)


def who_is_there(number: int, xyxy: np.ndarray) -> tuple[str, float]:
    """Name the visit whose face is where the box is; fail when there is none."""
    x, y = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    for visit, pose in demo_scene.poses(number):
        if abs(pose.x - x) < pose.size_px / 2 and abs(pose.y - y) < pose.size_px / 2:
            return visit.person.name, visit.start_s
    pytest.fail(f"a face in picture {number} at {xyxy}, where nobody is")


def make_detector(backend: str, request: pytest.FixtureRequest) -> FaceDetector:
    if backend == "haar":
        return HaarDetector(DetectorConfig())
    shared: Path = request.getfixturevalue("shared")
    session = OnnxSession(shared / "models" / "yunet_s_dynamic.onnx")
    return YuNetDetector(session, DetectorConfig())


@pytest.mark.parametrize("backend", ["haar", "yunet"])
def test_the_shipped_model_sees_the_astronaut_smile(
    backend: str, scene: Tour, request: pytest.FixtureRequest
) -> None:
    name = "microexpnet-fer2013"
    if name not in model_names():
        pytest.skip(f"the model {name} is not there")
    model = find_model(name)
    classifier = CropClassifier(OnnxSession(model.verified_file()), model.manifest)
    detector, tracker = make_detector(backend, request), IouTracker(TrackerConfig())
    probs = []
    for number in TOUR[:: STEPS[backend]]:
        picture = frame(scene, number)
        tracks = tracker.update(detector.detect(picture), picture.captured_ns)
        scores = classifier.classify(picture, tracks)
        probs += [
            scores.probs[row]
            for row, xyxy in enumerate(tracks.xyxy)
            if who_is_there(number, xyxy)[0] == COLLINS.name
        ]

    happy = classifier.labels.index("happy")
    assert len(probs) > 40
    assert np.mean(np.argmax(probs, axis=1) == happy) > 0.9
