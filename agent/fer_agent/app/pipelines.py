"""The pipelines of the configured cameras, each stage behind its wrappers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fer_agent.app.health import CameraMeter
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.camera.view import CameraView, OriginalCoordinates, ViewedCamera
from fer_agent.config.model import AgentConfig
from fer_agent.vision.motion_gate import MotionGatedDetector
from fer_agent.vision.pacing import Pace, PacedCamera
from fer_agent.vision.pipeline import Pipeline
from fer_agent.vision.ports import Camera, EmotionClassifier, FaceDetector, Publisher
from fer_agent.vision.recorder import FrameRecorder, RecordingClassifier
from fer_agent.vision.records import CameraStatus, EmotionEvent
from fer_agent.vision.smoother import EmotionSmoother
from fer_agent.vision.timing import StageClock, TimedCamera, timed
from fer_agent.vision.tracker import IouTracker


@dataclass(frozen=True, slots=True)
class PipelineFactory:
    """Makes pipelines from what all cameras have in common.

    Attributes:
        config: the configuration.
        classifier: shared by all pipelines.
        new_detector: makes a detector for one pipeline.
        meters: each pipeline's meter is added here.
        record: file for per-frame results, if any.
        max_frames: frames after which each camera ends; None for all.
        pace: how many frames a second are taken at most.
    """

    config: AgentConfig
    classifier: EmotionClassifier
    new_detector: Callable[[], FaceDetector]
    meters: list[CameraMeter]
    record: FrameRecorder | None = None
    max_frames: int | None = None
    pace: Pace = field(default_factory=Pace)

    def pipeline(self, name: str, camera: ThreadedCamera, publisher: Publisher) -> Pipeline:
        """Put the stages of one camera together, each behind its wrapper."""
        clock = StageClock()
        seen: Camera = camera
        section = self.config.camera[name]
        if view := CameraView.of(section):
            seen = viewed = ViewedCamera(camera, view)
            publisher = OriginalCoordinates(publisher, viewed, view)
        seen = paced = PacedCamera(seen, self.pace, camera.stats)
        own_pace = section.pace == "own"
        seen = TimedCamera(seen, clock, own_pace=own_pace, max_frames=self.max_frames)
        classifier = timed(self.classifier, "classify", clock)
        if self.record is not None:
            classifier = RecordingClassifier(classifier, self.record, name)
        self.meters.append(CameraMeter(paced.stats, clock))
        return Pipeline(
            camera=seen,
            detector=self._detector(clock),
            tracker=timed(IouTracker(self.config.tracker), "track", clock),
            classifier=classifier,
            smoother=timed(EmotionSmoother(self.config.smoother), "smooth", clock),
            publisher=timed(publisher, "publish", clock),
        )

    def _detector(self, clock: StageClock) -> FaceDetector:
        """Make one camera's detector; only searches are timed, not the frames it rests in."""
        detector = timed(self.new_detector(), "detect", clock)
        tracker, rest_s = self.config.tracker, self.config.detector.rest_s
        if not rest_s:
            return detector
        return MotionGatedDetector(
            detector,
            rest_s=rest_s,
            steady_s=tracker.max_missed_s,
            min_detections=tracker.confirm_frames,
        )


class NullPublisher:
    """A per-camera publisher for runs without a broker: it drops everything."""

    def publish(self, event: EmotionEvent) -> None:
        """Drop the event."""

    def status(self, status: CameraStatus) -> None:
        """Drop the status; the log has it."""
