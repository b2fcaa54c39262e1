from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.app.agent import Agent
from fer_agent.app.health import CameraMeter, HealthReporter
from fer_agent.config.model import SmootherConfig, TrackerConfig
from fer_agent.errors import CameraError, InferenceError, UsageError
from fer_agent.vision.pipeline import Pipeline
from fer_agent.vision.recorder import FrameRecorder, RecordingClassifier
from fer_agent.vision.records import (
    CameraStats,
    EmotionScores,
    EventKind,
    Faces,
    Frame,
    Gap,
    ModelIdentity,
)
from fer_agent.vision.smoother import EmotionSmoother
from fer_agent.vision.timing import STAGES, StageClock, TimedCamera, percentiles, timed
from fer_agent.vision.tracker import IouTracker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fer_agent.vision.records import EmotionEvent, Tracks

MODEL = ModelIdentity("net", "0" * 64)
FRAME_NS = 50_000_000
SESSION = "018f0000-0000-7000-8000-000000000000"


def frame(number: int) -> Frame:
    return Frame(np.full((48, 64), 90, np.uint8), captured_ns=number * FRAME_NS, number=number)


class ListCamera:
    """Yields what it was given; `error` comes after the last."""

    def __init__(self, items: list[Frame | Gap], error: Exception | None = None) -> None:
        self.items = items
        self.error = error
        self.closed = threading.Event()

    def frames(self) -> Iterator[Frame | Gap]:
        for item in self.items:
            if self.closed.is_set():
                return
            yield item
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed.set()


class WaitingCamera(ListCamera):
    """Yields its frames, then waits to be closed."""

    def frames(self) -> Iterator[Frame | Gap]:
        yield from self.items
        self.closed.wait(10)


class HungCamera(ListCamera):
    """A driver whose calls do not return, not even the one that closes it, before the test ends."""

    def __init__(self) -> None:
        super().__init__([])
        self.released = threading.Event()

    def frames(self) -> Iterator[Frame | Gap]:
        self.released.wait()
        yield from ()

    def close(self) -> None:
        self.released.wait()


class OneFace:
    """Finds the same face in every frame."""

    def detect(self, frame: Frame) -> Faces:
        return Faces(
            xyxy=np.array([[10, 10, 40, 40]], np.float32),
            score=np.array([0.9], np.float32),
            landmarks=np.zeros((1, 5, 2), np.float32),
            frame_size=frame.size,
        )


class SlowFace(OneFace):
    def detect(self, frame: Frame) -> Faces:
        time.sleep(0.01)
        return super().detect(frame)


class AlwaysHappy:
    def classify(self, _frame: Frame, tracks: Tracks) -> EmotionScores:
        probs = np.tile(np.array([0.9, 0.1], np.float32), (len(tracks), 1))
        return EmotionScores(labels=("happy", "sad"), probs=probs, model=MODEL)


class Broken:
    def classify(self, _frame: Frame, _tracks: Tracks) -> EmotionScores:
        raise InferenceError("the network failed", remedy="report it")


class Collector:
    def __init__(self) -> None:
        self.events: list[EmotionEvent] = []

    def publish(self, event: EmotionEvent) -> None:
        self.events.append(event)

    def kinds(self) -> list[tuple[int, str]]:
        return [(event.track_id, event.kind.value) for event in self.events]


def pipeline(camera: ListCamera, out: Collector) -> Pipeline:
    return Pipeline(
        camera=camera,
        detector=OneFace(),
        tracker=IouTracker(TrackerConfig()),
        classifier=AlwaysHappy(),
        smoother=EmotionSmoother(SmootherConfig(abstain_below=0.3)),
        publisher=out,
    )


def agent(pipelines: dict[str, Pipeline]) -> Agent:
    meter = CameraMeter(lambda: CameraStats(captured=1, dropped=0, reopened=0), StageClock())
    health = HealthReporter([meter], session=SESSION, interval_s=60.0, publisher=None)
    return Agent(pipelines, publisher=None, health=health)


def test_a_track_is_started_and_ended_with_its_source() -> None:
    out = Collector()
    pipeline(ListCamera([frame(number) for number in range(20)]), out).run()
    assert out.kinds() == [(1, "started"), (1, "ended")]
    ended = out.events[-1]
    assert ended.emotion == "happy"
    assert ended.captured_ns == 19 * FRAME_NS


def test_a_gap_ends_the_tracks_and_ids_are_not_used_again() -> None:
    out = Collector()
    before = [frame(number) for number in range(20)]
    after = [frame(number) for number in range(21, 40)]
    pipeline(ListCamera([*before, Gap(20 * FRAME_NS, "the clip starts again"), *after]), out).run()
    assert out.kinds() == [(1, "started"), (1, "ended"), (2, "started"), (2, "ended")]


def test_open_tracks_are_ended_when_the_camera_fails() -> None:
    out = Collector()
    camera = ListCamera([frame(number) for number in range(20)], CameraError("gone", remedy="look"))
    with pytest.raises(CameraError, match="gone"):
        pipeline(camera, out).run()
    assert out.events[-1].kind is EventKind.ENDED


def test_a_timed_camera_ends_after_its_limit_and_does_not_count_gaps() -> None:
    camera = ListCamera([frame(0), Gap(0, "seam"), frame(1), frame(2), frame(3)])
    limited = TimedCamera(camera, StageClock(), max_frames=3)
    numbers = [f.number for f in limited.frames() if isinstance(f, Frame)]
    assert numbers == [0, 1, 2]
    assert camera.closed.is_set()


def test_a_timed_stage_keeps_what_is_not_timed() -> None:
    clock = StageClock()
    tracker = timed(IouTracker(TrackerConfig(confirm_frames=1)), "track", clock)
    face = OneFace().detect(frame(0))
    first = tracker.update(face, 0)
    tracker.reset()
    second = tracker.update(face, FRAME_NS)
    assert (first.track_id.tolist(), second.track_id.tolist()) == ([1], [2])
    assert len(clock.take()["track"]) == 2


def test_stage_clock_keeps_durations_until_they_are_taken() -> None:
    clock = StageClock()
    detector = timed(OneFace(), "detect", clock)
    assert len(detector.detect(frame(0))) == 1
    list(TimedCamera(ListCamera([frame(0), Gap(0, "seam")]), clock).frames())
    taken = clock.take()
    assert clock.detected == 1
    assert set(taken) == set(STAGES)
    assert [len(taken[stage]) for stage in ("detect", "total", "track")] == [1, 1, 0]
    assert clock.processed == 1
    assert clock.take()["detect"] == []


def test_stage_clock_tells_how_long_a_stage_and_a_whole_frame_took() -> None:
    clock = StageClock()
    detector = timed(SlowFace(), "detect", clock)
    captured = Frame(frame(0).luma, captured_ns=time.monotonic_ns(), number=0)
    for taken in TimedCamera(ListCamera([captured]), clock).frames():
        detector.detect(taken)
    took_ms = (time.monotonic_ns() - captured.captured_ns) / 1e6
    durations = clock.take()
    assert 10 <= durations["detect"][0] < durations["total"][0] <= took_ms


def test_percentiles_of_nothing_are_none_not_zero() -> None:
    assert percentiles([]) is None
    assert percentiles([float(value) for value in range(101)]) == (50.0, 95.0, 99.0)


def test_health_rates_are_of_the_time_since_the_last_report() -> None:
    counts = iter([CameraStats(0, 0, 0), CameraStats(100, 40, 0), CameraStats(100, 40, 0)])
    clock = StageClock()
    health = HealthReporter(
        [CameraMeter(lambda: next(counts), clock)], session=SESSION, interval_s=1, publisher=None
    )
    clock.frame_done(0)
    first, second = health.measure(), health.measure()
    assert first.camera_fps is not None
    assert first.camera_fps > 0
    assert first.skipped_fps == pytest.approx(first.camera_fps * 0.4, rel=0.01)
    assert (second.camera_fps, second.skipped_fps, second.process_fps) == (0, 0, 0)
    assert "total" in first.latency_ms
    assert second.latency_ms == {}
    assert first.outbox is None
    assert first.memory_bytes


def test_health_tells_frames_searched_from_frames_processed() -> None:
    clock = StageClock()
    health = HealthReporter(
        [CameraMeter(lambda: CameraStats(0, 0, 0), clock)],
        session=SESSION,
        interval_s=1,
        publisher=None,
    )
    detector = timed(OneFace(), "detect", clock)
    for number in range(10):
        if number % 5 == 0:
            detector.detect(frame(number))
        clock.frame_done(number)
    figures = health.measure()
    assert figures.process_fps is not None
    assert figures.detection_fps == pytest.approx(figures.process_fps / 5, rel=0.01)


def test_agent_ends_when_every_source_is_finished() -> None:
    out = Collector()
    agent({"a": pipeline(ListCamera([frame(n) for n in range(9)]), out)}).run()
    assert out.kinds() == [(1, "started"), (1, "ended")]


def test_agent_stops_when_asked_and_ends_open_tracks() -> None:
    out = Collector()
    running = agent({"a": pipeline(WaitingCamera([frame(n) for n in range(9)]), out)})
    thread = threading.Thread(target=running.run)
    thread.start()
    running.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert out.kinds() in ([], [(1, "started"), (1, "ended")])


def test_hung_cameras_keep_the_agent_from_nothing() -> None:
    out, started = Collector(), threading.Event()
    seen: list[Frame | Gap] = [frame(n) for n in range(9)]

    class Watched(WaitingCamera):
        def frames(self) -> Iterator[Frame | Gap]:
            yield from self.items
            started.set()
            self.closed.wait()

    hung = [HungCamera(), HungCamera()]
    good = pipeline(Watched(seen), out)
    parts = {"h": pipeline(hung[0], Collector()), "i": pipeline(hung[1], Collector()), "ok": good}
    running = agent(parts)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        assert started.wait(60)
        running.stop()
        thread.join(60)
        assert not thread.is_alive()
    finally:
        for camera in hung:
            camera.released.set()
    assert out.kinds() == [(1, "started"), (1, "ended")]


def test_agent_raises_what_broke_a_pipeline_and_stops_the_others() -> None:
    out = Collector()
    good = WaitingCamera([frame(0)])
    bad = Pipeline(
        camera=ListCamera([frame(n) for n in range(9)]),
        detector=OneFace(),
        tracker=IouTracker(TrackerConfig()),
        classifier=Broken(),
        smoother=EmotionSmoother(SmootherConfig(abstain_below=0.3)),
        publisher=out,
    )
    with pytest.raises(InferenceError, match="the network failed"):
        agent({"good": pipeline(good, out), "bad": bad}).run()
    assert good.closed.is_set()


def test_a_file_that_cannot_be_played_ends_the_run_when_it_was_the_only_source() -> None:
    broken = ListCamera([], CameraError("clip.mp4 is no video", remedy="give another"))
    with pytest.raises(CameraError, match=r"clip\.mp4 is no video"):
        agent({"a": pipeline(broken, Collector())}).run()


def test_a_file_that_cannot_be_played_does_not_disturb_the_other_camera() -> None:
    out = Collector()
    broken = ListCamera([], CameraError("clip.mp4 is no video", remedy="give another"))
    good = ListCamera([frame(n) for n in range(9)])
    agent({"a": pipeline(broken, Collector()), "b": pipeline(good, out)}).run()
    assert out.kinds() == [(1, "started"), (1, "ended")]


def test_record_holds_a_header_and_every_frame(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    record = FrameRecorder(path, {"model": "tiny"})
    faces = OneFace().detect(frame(7))
    tracker = IouTracker(TrackerConfig(confirm_frames=1))
    classifier = RecordingClassifier(AlwaysHappy(), record, "door")
    scores = classifier.classify(frame(7), tracker.update(faces, 7))
    record.close()
    header, line = (json.loads(text) for text in path.read_text(encoding="utf-8").splitlines())
    assert header == {"schema_version": 1, "model": "tiny"}
    assert len(scores) == 1
    assert (line["camera"], line["frame"], line["size"]) == ("door", 7, [64, 48])
    assert line["faces"] == [
        {
            "track_id": 1,
            "xyxy": [10.0, 10.0, 40.0, 40.0],
            "score": 0.9,
            "probs": {"happy": 0.9, "sad": 0.1},
        }
    ]


@pytest.mark.parametrize(
    ("header_sha256", "named"),
    [(MODEL.sha256, None), ("1" * 64, {"name": MODEL.name, "sha256": MODEL.sha256})],
)
def test_record_names_the_model_of_frames_that_the_headers_did_not_score(
    tmp_path: Path, header_sha256: str, named: dict[str, str] | None
) -> None:
    path = tmp_path / "record.jsonl"
    record = FrameRecorder(path, {"model_sha256": header_sha256})
    tracks = IouTracker(TrackerConfig()).update(OneFace().detect(frame(7)), 7)
    RecordingClassifier(AlwaysHappy(), record, "door").classify(frame(7), tracks)
    record.close()
    line = json.loads(path.read_text(encoding="utf-8").splitlines()[1])
    assert line.get("model") == named


def test_record_in_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write the record"):
        FrameRecorder(tmp_path / "nowhere" / "record.jsonl", {})


def test_record_on_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    with pytest.raises(UsageError, match="No space left"):
        FrameRecorder(full, {"model": "tiny"}).write({"frame": 1})
