"""The pipelines of the configured cameras, each stage behind its wrappers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fer_agent.app.health import CameraMeter
from fer_agent.camera.view import OriginalCoordinates, View, ViewedCamera
from fer_agent.vision.motion_gate import RestingDetector
from fer_agent.vision.pacing import Pace, PacedCamera
from fer_agent.vision.pipeline import Pipeline
from fer_agent.vision.recorder import Record, RecordingClassifier
from fer_agent.vision.smoother import EmotionSmoother
from fer_agent.vision.timing import (
    FirstFrames,
    StageClock,
    TimedCamera,
    TimedClassifier,
    TimedDetector,
    TimedPublisher,
    TimedSmoother,
    TimedTracker,
)
from fer_agent.vision.tracker import IouTracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.camera.threaded import ThreadedCamera
    from fer_agent.config.model import AgentConfig
    from fer_agent.vision.ports import Camera, EmotionClassifier, FaceDetector, Publisher
    from fer_agent.vision.records import CameraStatus, EmotionEvent


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
    record: Record | None = None
    max_frames: int | None = None
    pace: Pace = field(default_factory=Pace)

    def pipeline(self, name: str, camera: ThreadedCamera, publisher: Publisher) -> Pipeline:
        """Put the stages of one camera together, each behind its wrapper."""
        clock = StageClock()
        seen: Camera = camera
        section = self.config.camera[name]
        if view := View.of(section):
            seen = viewed = ViewedCamera(camera, view)
            publisher = OriginalCoordinates(publisher, viewed, view)
        seen = paced = PacedCamera(seen, self.pace, camera.stats)
        seen = TimedCamera(seen, clock, own_pace=section.pace == "own")
        if self.max_frames is not None:
            seen = FirstFrames(seen, self.max_frames)
        classifier: EmotionClassifier = TimedClassifier(self.classifier, clock)
        if self.record is not None:
            classifier = RecordingClassifier(classifier, self.record, name)
        self.meters.append(CameraMeter(paced.stats, clock))
        return Pipeline(
            camera=seen,
            detector=self._detector(clock),
            tracker=TimedTracker(IouTracker(self.config.tracker), clock),
            classifier=classifier,
            smoother=TimedSmoother(EmotionSmoother(self.config.smoother), clock),
            publisher=TimedPublisher(publisher, clock),
        )

    def _detector(self, clock: StageClock) -> FaceDetector:
        """Make one camera's detector; only searches are timed, not the frames it rests in."""
        detector = TimedDetector(self.new_detector(), clock)
        tracker, rest_s = self.config.tracker, self.config.detector.rest_s
        if not rest_s:
            return detector
        return RestingDetector(
            detector, rest_s=rest_s, settle_s=tracker.max_missed_s, looks=tracker.confirm_frames
        )


class NullPublisher:
    """A per-camera publisher for runs without a broker: it drops everything."""

    def publish(self, event: EmotionEvent) -> None:
        """Drop the event."""

    def status(self, status: CameraStatus) -> None:
        """Drop the status; the log has it."""
