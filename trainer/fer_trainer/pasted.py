"""Accuracy on test faces pasted into photos, from the agent's detector to its classifier.

A benchmark crop is framed by people; a live crop by a detector, from however few pixels the face
has. This measures what that costs, with the agent's own parts from the frame to the answer.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from fer_agent.vision.crop import crop_faces
from fer_agent.vision.records import Frame
from fer_trainer.data.faceset import SIZE_PX
from fer_trainer.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fer_agent.vision.classifier import CropClassifier
    from fer_agent.vision.ports import FaceDetector
    from fer_trainer.data.faceset import FaceSet, Float32Array, Int64Array, UInt8Array

SIDES_PX = (24, 32, 48, 64, 96, 128, 200)
"""Sides of the pasted pictures; the detector's box is about four fifths as high."""

_MARGIN_PX = 8
"""A photo's shorter side is at least so much longer than the largest face."""

_NEAR = 0.25
"""A found face's middle is at most so far from the picture's, in sides of it."""

_BATCH = 256


class Pasted(NamedTuple):
    """A photo with a face in it.

    Attributes:
        luma: uint8 (H, W).
        left, top: of the pasted square, pixels.
    """

    luma: UInt8Array
    left: int
    top: int


@dataclass(frozen=True, slots=True)
class AtSize:
    """Figures of the faces pasted at one size.

    Attributes:
        side_px: of the pasted square.
        n: faces pasted.
        found: share in which the detector found the face.
        accuracy: of the classifier on the crops of those found; 0 when none was.
        own_accuracy: of the same faces as the data set has them.
    """

    side_px: int
    n: int
    found: float
    accuracy: float
    own_accuracy: float

    @property
    def lost_points(self) -> float:
        """Accuracy lost on the way through the frame, in points."""
        return 100.0 * (self.own_accuracy - self.accuracy)


def backgrounds(
    archive: Path, *, most: int = 200, largest_px: int = SIDES_PX[-1]
) -> list[UInt8Array]:
    """Read photos without a face from a tar archive's folder `negatives/`.

    Args:
        archive: of WebP, PNG or JPEG pictures.
        most: how many are enough.
        largest_px: side of the largest face that has to fit.

    Returns:
        Luma, uint8 (H, W) each, at the size they have.

    Raises:
        DataError: the archive cannot be read, or holds no such photo.
    """
    found: list[UInt8Array] = []
    try:
        with tarfile.open(archive, "r|*") as members:
            for member in members:
                if "negatives/" not in member.name or not (file := members.extractfile(member)):
                    continue
                encoded = np.frombuffer(io.BytesIO(file.read()).getbuffer(), np.uint8)
                luma = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
                if luma is not None and min(luma.shape) >= largest_px + _MARGIN_PX:
                    found.append(np.asarray(luma, np.uint8))
                if len(found) == most:
                    return found
    except (tarfile.TarError, EOFError, lzma.LZMAError, OSError) as error:
        raise DataError(
            f"the archive {archive} cannot be read to its end: {error}",
            remedy="give a whole tar archive of photos without a face, in a folder negatives/",
        ) from error
    if not found:
        raise DataError(
            f"{archive} has no photo of {largest_px + _MARGIN_PX} pixels or more under negatives/",
            remedy="give an archive of photos without a face, in a folder negatives/",
        )
    return found


def paste(image: UInt8Array, photo: UInt8Array, side_px: int, place: tuple[float, float]) -> Pasted:
    """Put a face's picture into a photo.

    Args:
        image: uint8 (48, 48).
        photo: uint8 (H, W), not modified.
        side_px: side of the picture in the photo.
        place: where, in [0, 1) of the room there is to the right and below.
    """
    method = cv2.INTER_AREA if side_px < SIZE_PX else cv2.INTER_CUBIC
    scaled = cv2.resize(image, (side_px, side_px), interpolation=method)
    height, width = photo.shape
    left, top = int(place[0] * (width - side_px + 1)), int(place[1] * (height - side_px + 1))
    luma = photo.copy()
    luma[top : top + side_px, left : left + side_px] = scaled
    return Pasted(luma, left, top)


def measure(
    faces: FaceSet,
    photos: Sequence[UInt8Array],
    detector: FaceDetector,
    classifier: CropClassifier,
    *,
    sides_px: Sequence[int] = SIDES_PX,
    seed: int = 0,
) -> list[AtSize]:
    """Paste every face once at each size, look for it, and classify what was found.

    Args:
        faces: of one split, with the classifier's labels in any order.
        photos: from `backgrounds`; each face has its own, the same at all sizes.
        detector: the agent's.
        classifier: the agent's.
        sides_px: of the pasted squares.
        seed: of the places.

    Raises:
        DataError: the classifier has no such labels.
    """
    truth = _in_order_of(classifier.labels, faces)
    own = _answers(classifier, np.ascontiguousarray(faces.images)[:, np.newaxis]) == truth
    places = np.random.default_rng(seed).random((len(faces), 2))
    figures = []
    for side_px in sides_px:
        rows, crops = [], []
        for row, image in enumerate(faces.images):
            x, y = places[row]
            pasted = paste(image, photos[row % len(photos)], side_px, (float(x), float(y)))
            box = _find(detector, pasted, side_px)
            if box is not None:
                rows.append(row)
                crops.append(crop_faces(pasted.luma, box[np.newaxis], (SIZE_PX, SIZE_PX))[0])
        right = _answers(classifier, np.stack(crops)) == truth[rows] if rows else np.zeros(0)
        figures.append(
            AtSize(
                side_px=side_px,
                n=len(faces),
                found=len(rows) / len(faces),
                accuracy=float(right.mean()) if rows else 0.0,
                own_accuracy=float(own[rows].mean()) if rows else 0.0,
            )
        )
    return figures


def own_accuracy(faces: FaceSet, classifier: CropClassifier) -> float:
    """Give the classifier's accuracy on all the faces as the data set has them."""
    truth = _in_order_of(classifier.labels, faces)
    answers = _answers(classifier, np.ascontiguousarray(faces.images)[:, np.newaxis])
    return float((answers == truth).mean())


def _in_order_of(labels: tuple[str, ...], faces: FaceSet) -> Int64Array:
    """Number the faces' labels as the classifier does."""
    foreign = sorted(set(faces.labels) - set(labels))
    if foreign:
        raise DataError(
            f"the model does not know {', '.join(foreign)}",
            remedy="use the data and votes it was trained with",
        )
    numbers = np.array([labels.index(label) for label in faces.labels])
    return numbers[faces.hard_labels].astype(np.int64)


def _find(detector: FaceDetector, pasted: Pasted, side_px: int) -> Float32Array | None:
    """Give the box of the best face in the middle of the pasted square."""
    faces = detector.detect(Frame(pasted.luma, 0, 0))
    middle = np.array([pasted.left, pasted.top], np.float32) + side_px / 2
    centres = (faces.xyxy[:, :2] + faces.xyxy[:, 2:]) / 2
    near = np.flatnonzero(np.abs(centres - middle).max(axis=1, initial=0.0) <= _NEAR * side_px)
    return faces.xyxy[near[0]] if near.size else None


def _answers(classifier: CropClassifier, crops: UInt8Array) -> Int64Array:
    starts = range(0, len(crops), _BATCH)
    parts = [classifier.probs(crops[i : i + _BATCH]).argmax(axis=1) for i in starts]
    return np.concatenate(parts).astype(np.int64)
