"""When faces are looked for: on simulated sequences, and with the real networks on real faces."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.app import compose
from fer_agent.assets.portraits import COLLINS, HOPPER, Pose, Scene
from fer_agent.camera.backends.clips import play
from fer_agent.camera.backends.replay import make_frame
from fer_agent.config.model import (
    AgentConfig,
    DetectorConfig,
    SmootherConfig,
    TrackerConfig,
    default_store,
)
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.motion_gate import MotionGatedDetector
from fer_agent.vision.pipeline import Pipeline
from fer_agent.vision.records import CameraStats, Faces, Frame
from fer_agent.vision.smoother import EmotionSmoother
from fer_agent.vision.tracker import IouTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_agent.vision.ports import FaceDetector
    from fer_agent.vision.records import Bgr, EmotionEvent

REST_S = 0.3
STEADY_S = 1.5
LATEST_NS = 300_000_000


class Scripted:
    """Finds what it is told to, and remembers which frames it was asked about."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = list(boxes)
        self.asked_ns: list[int] = []

    def detect(self, frame: Frame) -> Faces:
        self.asked_ns.append(frame.captured_ns)
        count = len(self.boxes)
        return Faces(
            xyxy=np.array(self.boxes, np.float32).reshape(count, 4),
            score=np.full(count, 0.9, np.float32),
            landmarks=np.zeros((count, 5, 2), np.float32),
            frame_size=frame.size,
        )


def gated(detector: FaceDetector, min_detections: int = 2) -> MotionGatedDetector:
    return MotionGatedDetector(
        detector, rest_s=REST_S, steady_s=STEADY_S, min_detections=min_detections
    )


def still(at_s: float, size: tuple[int, int] = (320, 240)) -> Frame:
    """Return the same picture again, at a time."""
    return Frame(np.full(size[::-1], 90, np.uint8), round(at_s * 1e9), 0)


def times(fps: float, seconds: float, jitter: float = 0.0) -> list[float]:
    random = np.random.default_rng(7)
    count = round(fps * seconds)
    return [10 + (n + jitter * random.uniform(-0.5, 0.5)) / fps for n in range(count)]


@pytest.mark.parametrize("fps", [4.0, 7.0, 10.0, 15.0, 24.0, 30.0, 60.0])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_from_one_search_to_the_next_it_is_never_longer_than_300_ms(
    fps: float, jitter: float
) -> None:
    inner = Scripted()
    detector = gated(inner)
    longest_s = (1 + jitter) / fps
    for at_s in times(fps, 12, jitter):
        detector.detect(still(at_s))
    # Before a frame comes, nobody knows by how much later than the last one it will be.
    allowed_ns = max(LATEST_NS + 2 * jitter / fps * 1e9, longest_s * 1e9)
    assert max(b - a for a, b in pairwise(inner.asked_ns)) <= allowed_ns + 1e3


def test_an_idle_scene_is_searched_three_or_four_times_a_second() -> None:
    inner = Scripted()
    detector = gated(inner)
    for at_s in times(30, 11.5):
        detector.detect(still(at_s))
    before_rest = [at_ns for at_ns in inner.asked_ns if at_ns < (10 + STEADY_S) * 1e9]
    assert len(before_rest) == 30 * STEADY_S  # all of them, until it is sure
    assert len(inner.asked_ns) - len(before_rest) == pytest.approx(10 / REST_S, abs=2)


def test_a_face_that_keeps_still_is_given_again_and_searched_for_less_often() -> None:
    inner = Scripted((50, 50, 90, 100))
    detector = gated(inner)
    found = [detector.detect(still(at_s)) for at_s in times(30, 5)]
    assert all(faces.xyxy.tolist() == [[50, 50, 90, 100]] for faces in found)
    assert len(inner.asked_ns) < 0.45 * len(found)


def test_a_found_box_that_trembles_by_a_thirtieth_of_its_size_keeps_still() -> None:
    inner = Scripted()
    detector = gated(inner)
    for number, at_s in enumerate(times(30, 5)):
        off = number % 3 - 1
        inner.boxes = [(50 + off, 50 - off, 110 - off, 110 + off)]
        detector.detect(still(at_s))
    assert len(inner.asked_ns) < 0.45 * 150


def test_a_new_face_that_comes_without_a_motion_is_seen_within_300_ms_whenever_it_comes() -> None:
    for offset in range(12):
        inner = Scripted()
        detector = gated(inner)
        for at_s in times(30, 3 + offset / 30):
            detector.detect(still(at_s))
        inner.boxes = [(50, 50, 90, 100)]
        first_s = at_s + 1 / 30
        seen_s = next(
            now_s
            for now_s in (first_s + n / 30 for n in range(30))
            if len(detector.detect(still(now_s)))
        )
        assert seen_s - first_s <= REST_S


def test_a_result_that_changes_is_searched_for_in_every_frame_until_it_settles_again() -> None:
    inner = Scripted()
    detector = gated(inner)
    for at_s in times(30, 4):
        detector.detect(still(at_s))
    inner.boxes = [(50, 50, 90, 100)]
    asked = len(inner.asked_ns)
    frames = 0
    while not len(detector.detect(still(at_s + (frames + 1) / 30))):
        frames += 1
    before = len(inner.asked_ns)
    for number in range(30):
        detector.detect(still(at_s + (frames + 2 + number) / 30))
    assert before == asked + 1
    assert len(inner.asked_ns) == before + 30


def test_a_face_that_flickers_is_searched_for_in_every_frame() -> None:
    inner = Scripted()
    detector = gated(inner)
    for number, at_s in enumerate(times(30, 6)):
        inner.boxes = [(50, 50, 90, 100)] if number % 9 else []
        detector.detect(still(at_s))
    assert len(inner.asked_ns) == 180


def test_a_box_that_creeps_away_without_a_motion_does_not_count_as_still() -> None:
    inner = Scripted()
    detector = gated(inner)
    for number, at_s in enumerate(times(30, 6)):
        left = 20 + number * 0.4  # 12 pixels a second, of a face of 50
        inner.boxes = [(left, 50, left + 40, 100)]
        found = detector.detect(still(at_s))
        assert abs(found.xyxy[0, 0] - left) < 0.5
    assert len(inner.asked_ns) == 180


def test_as_many_detections_as_a_track_needs_come_before_the_first_rest() -> None:
    inner = Scripted()
    detector = gated(inner, min_detections=12)
    for at_s in times(4, 4):
        detector.detect(still(at_s))
    assert len(inner.asked_ns) == 16


def test_the_same_result_comes_three_times_before_the_first_rest_whatever_is_asked_for() -> None:
    inner = Scripted()
    detector = MotionGatedDetector(inner, rest_s=60, steady_s=0, min_detections=1)
    for at_s in times(30, 2):
        detector.detect(still(at_s))
    assert len(inner.asked_ns) == 3 + 1  # the fourth is the one that later pictures stand against


def test_another_size_of_picture_is_searched_at_once() -> None:
    inner = Scripted()
    detector = gated(inner)
    for at_s in times(30, 4):
        detector.detect(still(at_s))
    assert detector.detect(still(at_s + 0.03, (240, 320))).frame_size == (240, 320)


@pytest.mark.parametrize("size", [(640, 480), (641, 479), (1920, 1080), (48, 36), (3, 1), (200, 1)])
def test_a_motion_is_noticed_in_pictures_of_any_size(size: tuple[int, int]) -> None:
    inner = Scripted()
    detector = gated(inner)
    for at_s in times(30, 4):
        detector.detect(still(at_s, size))
    asked = len(inner.asked_ns)
    changed = still(at_s + 1 / 30, size)
    changed.luma[: -(-size[1] // 2), : -(-size[0] // 2)] = 140
    detector.detect(changed)
    again = still(at_s + 2 / 30, size)
    detector.detect(again)
    assert len(inner.asked_ns) == asked + 2


@pytest.mark.parametrize("x", [0, 310, 620])
@pytest.mark.parametrize("y", [0, 230, 460])
def test_a_motion_is_noticed_in_every_part_of_the_picture(x: int, y: int) -> None:
    inner = Scripted()
    detector = gated(inner)
    for at_s in times(30, 4):
        detector.detect(still(at_s, (640, 480)))
    asked = len(inner.asked_ns)
    changed = still(at_s + 1 / 30, (640, 480))
    changed.luma[y : y + 20, x : x + 20] = 140
    detector.detect(changed)
    assert len(inner.asked_ns) == asked + 1


class Watching:
    """Passes frames on to a real detector, and counts."""

    def __init__(self, detector: FaceDetector) -> None:
        self.asked_ns: list[int] = []
        self._detector = detector

    def detect(self, frame: Frame) -> Faces:
        self.asked_ns.append(frame.captured_ns)
        return self._detector.detect(frame)


def noisy(picture: Bgr, number: int, sigma: float = 3.0) -> Bgr:
    noise = np.random.default_rng(number).normal(0, sigma, picture.shape).round()
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def test_the_noise_of_a_dim_room_is_no_motion() -> None:
    inner = Scripted()
    detector = gated(inner)
    backdrop = Scene().draw_people([])
    for number, at_s in enumerate(times(30, 3)):
        frame = make_frame(noisy(backdrop, number, sigma=8.0), round(at_s * 1e9), number)
        detector.detect(frame)
    assert len(inner.asked_ns) <= 30 * STEADY_S + 1.5 / REST_S + 2


@pytest.mark.parametrize("speed", [1.0, 3.0])
def test_a_real_face_that_moves_is_searched_for_in_every_frame(
    yunet: OnnxSession, speed: float
) -> None:
    inner = Watching(YuNetDetector(yunet, DetectorConfig()))
    detector = gated(inner)
    scene = Scene()
    all_s = times(30, 3)
    for number, at_s in enumerate(all_s):
        moving = max(0, number - 60)
        picture = scene.draw_people([(COLLINS, Pose(200 + speed * moving, 215, 60))])
        detector.detect(make_frame(noisy(picture, number), round(at_s * 1e9), number))
    rested = [at_s for at_s in all_s[45:61] if round(at_s * 1e9) not in inner.asked_ns]
    assert len(rested) >= 10  # the face kept still, for the last half of a second
    assert all(round(at_s * 1e9) in inner.asked_ns for at_s in all_s[61:])


def test_somebody_who_appears_in_a_noisy_picture_is_seen_within_300_ms(yunet: OnnxSession) -> None:
    inner = Watching(YuNetDetector(yunet, DetectorConfig()))
    detector = gated(inner)
    scene = Scene()
    nobody = scene.draw_people([])
    for number, at_s in enumerate(times(30, 2.5)):
        assert not len(
            detector.detect(make_frame(noisy(nobody, number), round(at_s * 1e9), number))
        )
    assert len(inner.asked_ns) < 60
    # As small as YuNet finds her, far from the middle.
    small = scene.draw_people([(COLLINS, Pose(560, 90, 26))])
    for number in range(1, 10):
        frame = make_frame(noisy(small, 100 + number), round((at_s + number / 30) * 1e9), number)
        if len(detector.detect(frame)):
            break
    else:
        pytest.fail("not seen within 300 ms")


class Clip:
    """Plays frames from memory."""

    def __init__(self, frames: list[Frame]) -> None:
        self._frames = frames

    def frames(self) -> Iterator[Frame]:
        yield from self._frames

    def close(self) -> None:
        pass


class StillCamera(Clip):
    def stats(self) -> CameraStats:
        return CameraStats(captured=0, dropped=0, reopened=0)


@pytest.mark.parametrize(("rest_s", "searched"), [(0.3, 60), (0.0, 120)])
def test_the_composed_agent_rests_unless_it_is_told_not_to(
    yunet_file: Path, tmp_path: Path, rest_s: float, searched: int
) -> None:
    config = AgentConfig.model_validate(
        {
            "deployment": {"context": "research"},
            "camera": {"main": {"source": "memory", "pace": "fast"}},
            "detector": {"model_file": yunet_file, "rest_s": rest_s},
            "models": {"path": tmp_path},
        }
    )
    camera = StillCamera([still(at_s) for at_s in times(30, 4)])
    agent = compose.build(config, compose.RunOptions(publish=False), new_camera=lambda *_: camera)
    agent.pipelines["main"].run()
    figures = agent.health.measure()
    assert figures.process_fps is not None
    assert figures.detection_fps is not None
    share = figures.detection_fps / figures.process_fps
    assert share == pytest.approx(searched / 120, abs=0.12)


class EventCollector:
    def __init__(self) -> None:
        self.events: list[EmotionEvent] = []

    def publish(self, event: EmotionEvent) -> None:
        self.events.append(event)


def story(
    frames: list[Frame], detector: FaceDetector, classifier: CropClassifier
) -> list[tuple[str, int, str]]:
    """Return what is told of a clip: kind, track and word of each event."""
    out = EventCollector()
    Pipeline(
        camera=Clip(frames),
        detector=detector,
        tracker=IouTracker(TrackerConfig()),
        classifier=classifier,
        smoother=EmotionSmoother(SmootherConfig(update_s=1.0)),
        publisher=out,
    ).run()
    return [(event.kind.value, event.track_id, event.emotion) for event in out.events]


@pytest.fixture(scope="session")
def classifier() -> CropClassifier:
    model = find_model("microexpnet-fer2013", default_store())
    return CropClassifier(OnnxSession(model.verified_file("fp32")), model.manifest)


def real_clip(path: Path, rounds: int = 3) -> list[Frame]:
    """Return a clip forwards and backwards, so that nobody jumps."""
    pictures = [picture.bgr for picture in play(path, 30.0)]
    order = [*pictures, *pictures[::-1]] * rounds
    return [make_frame(picture, round(n / 12 * 1e9), n) for n, picture in enumerate(order)]


@pytest.mark.parametrize(
    "name",
    [
        "head-pose-face-detection-female",
        "head-pose-face-detection-female-and-male",
        "face-demographics-walking",
    ],
)
def test_real_clips_tell_the_same_story_with_and_without_rests(
    shared: Path, yunet: OnnxSession, classifier: CropClassifier, name: str
) -> None:
    frames = real_clip(shared / "media" / f"{name}.gif")
    always = story(frames, YuNetDetector(yunet, DetectorConfig()), classifier)
    inner = Watching(YuNetDetector(yunet, DetectorConfig()))
    assert story(frames, gated(inner), classifier) == always
    assert always  # somebody is in each of them


def test_two_people_who_sit_still_tell_the_same_story_with_a_third_of_the_searches(
    yunet: OnnxSession, classifier: CropClassifier
) -> None:
    scene = Scene()
    frames = []
    for number in range(150):  # five seconds; she leaves after four
        people = [(HOPPER, Pose(460, 275, 130)), (COLLINS, Pose(170, 215, 110))]
        picture = scene.draw_people(people if number < 120 else people[:1])
        frames.append(make_frame(noisy(picture, number), round((1 + number / 30) * 1e9), number))
    always = story(frames, YuNetDetector(yunet, DetectorConfig()), classifier)
    inner = Watching(YuNetDetector(yunet, DetectorConfig()))
    assert story(frames, gated(inner), classifier) == always
    assert {track for _, track, _ in always} == {1, 2}
    # All of the first 1.5 s and of the 1 s after she left, and a tenth of the rest.
    assert len(inner.asked_ns) < 100
