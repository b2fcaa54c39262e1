"""The crop's margin: the square around YuNet's box that frames a face as FER2013 does.

Two measurements on PublicTest images (never on PrivateTest, which stays the final test):

1. Framing. Each 48x48 image is enlarged and put into a plain scene; YuNet finds the face in it.
   The image's size and centre in units of the box give the crop that would have cut it out.
2. Accuracy. The scene is cropped around YuNet's box with several margins and classified by a
   model trained on FER2013. The margin that frames as the training did is the most accurate.

    python benchmarks/crop_margin.py --shared ../shared [--model models/microexpnet-fer2013]
"""

from __future__ import annotations

import argparse
import tarfile
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import cv2
import numpy as np

from fer_agent.config.model import DetectorConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import read_model
from fer_agent.vision import crop
from fer_agent.vision.classifier import CropClassifier
from fer_agent.vision.records import Frame

SCENE_PX = 320
FACE_SIDES_PX = (96, 160, 200)
MARGINS = (0.8, 0.9, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.6)
SHIFTS = (-0.08, -0.04, -0.02, 0.0, 0.02, 0.04, 0.08)


class FramedFace(NamedTuple):
    """One image in its scene, and the face found there."""

    scene: np.ndarray
    label: str
    xyxy: np.ndarray
    landmarks: np.ndarray


def public_test(shared: Path, every: int) -> list[tuple[str, np.ndarray]]:
    """Return label and image of every n-th PublicTest file, from the archive."""
    found = []
    with tarfile.open(shared / "data" / "fer2013.tar.xz", "r|xz") as archive:
        for member in archive:
            path = Path(member.name)
            if path.name.startswith("PublicTest") and (file := archive.extractfile(member)):
                found.append((path.parent.name, path.name, file.read()))
    found.sort(key=lambda entry: entry[1])
    return [
        (label, cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE))
        for label, _, content in found[::every]
    ]


def find(
    detector: YuNetDetector, images: list[tuple[str, np.ndarray]], side_px: int
) -> list[FramedFace]:
    """Put each image into its scene and keep those in whose middle a face is found."""
    border = (SCENE_PX - side_px) // 2
    samples = []
    for label, image in images:
        enlarged = cv2.resize(image, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
        scene = cv2.copyMakeBorder(
            enlarged,
            *[border] * 4,
            borderType=cv2.BORDER_CONSTANT,
            value=float(image.mean()),
        )
        faces = detector.detect(Frame(scene, 0, 0))
        centre = (faces.xyxy[:, :2] + faces.xyxy[:, 2:]) / 2
        inside = np.flatnonzero(np.abs(centre - SCENE_PX / 2).max(axis=1) < side_px / 4)
        if inside.size:
            best = inside[0]
            samples.append(FramedFace(scene, label, faces.xyxy[best], faces.landmarks[best]))
    return samples


def framing(samples: list[FramedFace], side_px: int) -> str:
    """Describe the box and landmarks in units of the image."""
    border = (SCENE_PX - side_px) // 2
    xyxy = (np.stack([sample.xyxy for sample in samples]) - border) / side_px
    size = np.sqrt(np.prod(xyxy[:, 2:] - xyxy[:, :2], axis=1))
    lower = (0.5 - (xyxy[:, 1] + xyxy[:, 3]) / 2) / size
    points = (np.stack([sample.landmarks for sample in samples]) - border) / side_px
    margin = np.percentile(1 / size, (25, 50, 75))
    eyes = np.median(points[:, 1, 0] - points[:, 0, 0])
    return (
        f"margin {margin[1]:.3f} (quartiles {margin[0]:.3f} to {margin[2]:.3f}), "
        f"image centre {np.median(lower):+.3f} of the box's size below the box's centre, "
        f"eyes {eyes:.3f} apart at height {np.median(points[:, :2, 1]):.3f}"
    )


def accuracy(
    classifier: CropClassifier, samples: list[FramedFace], margin: float, dy: float
) -> float:
    """Classify all samples cropped with one margin, the box moved down by a part of its size."""
    hits = 0
    with mock.patch.object(crop, "CROP_MARGIN", margin):
        for sample in samples:
            box = sample.xyxy.copy()
            box[1::2] += dy * np.sqrt((box[2] - box[0]) * (box[3] - box[1]))
            crops = crop.crop_faces(sample.scene, box[np.newaxis], (48, 48))
            hits += classifier.labels[int(classifier.probs(crops).argmax())] == sample.label
    return hits / len(samples)


def main() -> None:
    """Print both measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--model", type=Path, default=Path("models/microexpnet-ferplus"))
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    detector = YuNetDetector(
        OnnxSession(args.shared / "models" / "yunet_s_dynamic.onnx"), DetectorConfig()
    )
    images = public_test(args.shared, args.every)
    classifier = None
    if (args.model / "manifest.json").is_file():
        model = read_model(args.model)
        classifier = CropClassifier(OnnxSession(model.verified_file()), model.manifest)
        whole = np.stack([image for _, image in images])[:, np.newaxis]
        right = np.array(classifier.labels)[classifier.probs(whole).argmax(axis=1)]
        share = np.mean(right == np.array([label for label, _ in images]))
        print(f"{len(images)} images as they are: accuracy {share:.3f}")
    for side_px in FACE_SIDES_PX:
        samples = find(detector, images, side_px)
        print(f"\nface images {side_px} px wide, found {len(samples)} of {len(images)}")
        print("  " + framing(samples, side_px))
        if classifier is None:
            continue
        for margin in MARGINS:
            print(f"  margin {margin:.2f}: {accuracy(classifier, samples, margin, 0.0):.3f}")
        for dy in SHIFTS:
            share = accuracy(classifier, samples, crop.CROP_MARGIN, dy)
            print(f"  margin {crop.CROP_MARGIN:.2f}, moved {dy:+.2f}: {share:.3f}")


if __name__ == "__main__":
    main()
