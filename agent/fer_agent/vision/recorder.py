"""The recorder of the classifier's per-frame results in a JSON-lines file, for research."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import IO

from fer_agent.errors import UsageError
from fer_agent.vision.ports import EmotionClassifier
from fer_agent.vision.records import EmotionScores, Frame, Tracks

SCHEMA_VERSION = 1


class FrameRecorder:
    """A JSON-lines file shared by all pipelines of one run; no picture is ever written.

    The first line describes the run, each further line one frame:
    `{"camera", "frame", "mono_ns", "size", "faces": [{"track_id", "xyxy", "score", "probs"}]}`,
    boxes in pixels, probabilities before smoothing and by class name. A frame scored by another
    model than the header's also names it: `"model": {"name", "sha256"}`.
    """

    def __init__(self, path: Path, header: dict[str, object]) -> None:
        """Start the file, replacing an old one.

        Raises:
            UsageError: the file cannot be written.
        """
        self._path = path
        self.model_sha256 = header.get("model_sha256")
        """The model that frames need not name."""
        try:
            self._file: IO[str] = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise self._refused(error) from error
        self.write({"schema_version": SCHEMA_VERSION, **header})

    def write(self, line: dict[str, object]) -> None:
        """Append one line in one piece, so that pipelines cannot mix theirs.

        Raises:
            UsageError: the file cannot be written any more.
        """
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.close()
            raise self._refused(error) from error

    def close(self) -> None:
        """Close the file; every line is already written out."""
        self._file.close()

    def _refused(self, error: OSError) -> UsageError:
        return UsageError(
            f"cannot write the record {self._path}: {error.strerror}",
            remedy="give --record a file in a folder that exists, with room on its disk",
        )


class RecordingClassifier:
    """A classifier whose results are also recorded."""

    def __init__(self, classifier: EmotionClassifier, record: FrameRecorder, camera: str) -> None:
        self._classifier = classifier
        self._record = record
        self._camera = camera

    def classify(self, frame: Frame, tracks: Tracks) -> EmotionScores:
        """Classify, and write the frame's boxes, ids and probabilities."""
        scores = self._classifier.classify(frame, tracks)
        faces = [
            {
                "track_id": int(tracks.track_id[row]),
                "xyxy": [round(float(edge), 2) for edge in tracks.xyxy[row]],
                "score": round(float(tracks.score[row]), 4),
                "probs": {
                    label: round(float(prob), 6)
                    for label, prob in zip(scores.labels, scores.probs[row], strict=True)
                },
            }
            for row in range(len(tracks))
        ]
        line: dict[str, object] = {
            "camera": self._camera,
            "frame": frame.number,
            "mono_ns": frame.captured_ns,
            "size": list(frame.size),
            "faces": faces,
        }
        model = scores.model
        if model is not None and model.sha256 != self._record.model_sha256:
            line["model"] = {"name": model.name, "sha256": model.sha256}
        self._record.write(line)
        return scores
