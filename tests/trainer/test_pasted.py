"""Faces pasted into photos: their places, the detector's finds, and the errors about bad photos."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from fer_agent.config.model import DetectorConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import find_model
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.records import Faces, Frame
from fer_trainer.data.faceset import FaceSet, Split
from fer_trainer.errors import DataError
from fer_trainer.labels import BASIC_7
from fer_trainer.pasted import backgrounds, measure, own_accuracy, paste

if TYPE_CHECKING:
    from pathlib import Path


def portrait(shared: Path) -> np.ndarray:
    """A real face of the size and framing of a FER2013 image."""
    import cv2

    luma = cv2.imread(str(shared / "media" / "astronaut.png"), cv2.IMREAD_GRAYSCALE)
    face = np.asarray(luma, np.uint8)[60:210, 150:300]
    return np.asarray(cv2.resize(face, (48, 48), interpolation=cv2.INTER_AREA), np.uint8)


def test_a_face_lands_whole_inside_the_photo() -> None:
    photo, image = np.zeros((120, 200), np.uint8), np.full((48, 48), 200, np.uint8)
    for place in ((0.0, 0.0), (0.5, 0.25), (0.999999, 0.999999)):
        luma, left, top = paste(image, photo, 64, place)
        rows, columns = np.nonzero(luma)
        assert (columns.min(), columns.max() + 1) == (left, left + 64)
        assert (rows.min(), rows.max() + 1) == (top, top + 64)
    assert not photo.any()


def test_faces_are_found_and_read_by_the_agents_own_parts(shared: Path) -> None:
    model = find_model("microexpnet-fer2013")
    classifier = CropClassifier(OnnxSession(model.verified_file()), model.manifest)
    yunet = OnnxSession(shared / "models" / "yunet_s_dynamic.onnx")
    images = np.stack([portrait(shared)] * 3)
    answer = int(classifier.probs(images[:1, np.newaxis]).argmax())
    targets = np.eye(7, dtype=np.float32)[[answer] * 3]
    split = np.full(3, Split.TEST, np.uint8)
    faces = FaceSet("portraits", BASIC_7, images, targets, split, ("a", "b", "c"), "0" * 64)
    assert own_accuracy(faces, classifier) == 1.0
    photos = [np.full((240, 320), value, np.uint8) for value in (90, 120)]
    detector = YuNetDetector(yunet, DetectorConfig())
    large, tiny = measure(faces, photos, detector, classifier, sides_px=(128, 8))
    assert (large.side_px, large.n, large.found, large.own_accuracy) == (128, 3, 1.0, 1.0)
    assert large.lost_points == pytest.approx(100 * (1.0 - large.accuracy))
    assert (tiny.found, tiny.accuracy) == (0.0, 0.0)
    with pytest.raises(DataError, match="does not know bored"):
        own_accuracy(
            FaceSet("x", ("bored",), images, targets[:, :1], split, ("a", "b", "c"), "0" * 64),
            classifier,
        )


def test_a_face_found_elsewhere_does_not_count(faces: FaceSet) -> None:
    class Elsewhere:
        def detect(self, frame: Frame) -> Faces:
            return Faces(
                xyxy=np.array([[0, 0, 4, 4]], np.float32),
                score=np.ones(1, np.float32),
                landmarks=np.zeros((1, 5, 2), np.float32),
                frame_size=frame.size,
            )

    model = find_model("microexpnet-fer2013")
    classifier = CropClassifier(OnnxSession(model.verified_file()), model.manifest)
    some = faces.only(Split.TEST).take([0, 1, 2])
    (found,) = measure(
        some, [np.zeros((240, 320), np.uint8)], Elsewhere(), classifier, sides_px=(48,), seed=1
    )
    assert found.found == 0.0


def test_photos_must_be_there_and_large_enough(tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        for name, side in (("negatives/a.png", 260), ("negatives/b.png", 60), ("web/c.png", 260)):
            buffer = io.BytesIO()
            Image.fromarray(np.full((side, side), 7, np.uint8)).save(buffer, "png")
            content = buffer.getvalue()
            member = tarfile.TarInfo(f"faces/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert [photo.shape for photo in backgrounds(path)] == [(260, 260)]
    with pytest.raises(DataError, match="has no photo of 308 pixels"):
        backgrounds(path, largest_px=300)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read to its end"):
        backgrounds(path)
