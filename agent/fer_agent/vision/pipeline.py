"""The pipeline of a frame, from the camera to the events it causes."""

from __future__ import annotations

from dataclasses import dataclass

from fer_agent.vision.ports import (
    Camera,
    EmotionClassifier,
    FaceDetector,
    FaceTracker,
    Publisher,
    Smoother,
)
from fer_agent.vision.records import Gap


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One camera's stages, in the order a frame passes them.

    Timing and recording are wrappers around a stage that satisfy the same port.
    """

    camera: Camera
    detector: FaceDetector
    tracker: FaceTracker
    classifier: EmotionClassifier
    smoother: Smoother
    publisher: Publisher

    def run(self) -> None:
        """Process frames until the camera ends or is closed; every open track is ended then.

        Raises:
            CameraError: a file source cannot be opened or read at all.
            InferenceError: a network failed while running.
        """
        try:
            for frame in self.camera.frames():
                if isinstance(frame, Gap):
                    self._end_tracks()
                    continue
                faces = self.detector.detect(frame)
                tracks = self.tracker.update(faces, frame.captured_ns)
                scores = self.classifier.classify(frame, tracks)
                for event in self.smoother.update(tracks, scores, frame.captured_ns):
                    self.publisher.publish(event)
        finally:
            self._end_tracks()

    def _end_tracks(self) -> None:
        self.tracker.reset()
        for event in self.smoother.finish():
            self.publisher.publish(event)
