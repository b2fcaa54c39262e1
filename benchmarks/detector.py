"""Recall, false alarms and time of both face detectors, and the gain of the second pass.

Web photos with one or more faces labelled by people (eyes, nose, mouth), and photos without a face,
from the shared archive; all are gray.

    OMP_NUM_THREADS=1 python benchmarks/detector.py --shared ../shared [--every 10]
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from fer_agent.config.model import DetectorConfig
from fer_agent.detector.haar import HaarDetector
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.vision.records import Frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fer_agent.vision.ports import FaceDetector

FACE_HEIGHTS = (1.0, 1.4, 1.8, 2.2)
CLOSE_UP = (640, 480)


class Photo(NamedTuple):
    """A photo and the middle of each labelled face, (N, 2)."""

    luma: NDArray[np.uint8]
    middles: NDArray[np.float64]
    teacher: list[dict[str, Any]]


class CountedOnnxSession(OnnxSession):
    """A session that counts its runs."""

    runs = 0

    def run(self, tensor: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """Run the network once."""
        self.runs += 1
        return super().run(tensor)


def load(shared: Path, every: int) -> tuple[list[Photo], list[Photo]]:
    """Return every n-th photo with labelled faces, and every n-th without a face."""
    entries: dict[str, dict[str, Any]] = {}
    photos: dict[str, list[Photo]] = {"webfaces": [], "negatives": []}
    seen = dict.fromkeys(photos, 0)
    with tarfile.open(shared / "data" / "faces.tar.xz", "r|xz") as archive:
        for member in archive:
            name = member.name.removeprefix("faces/")
            file = archive.extractfile(member)
            kind = name.partition("/")[0]
            if file and name == "index.json":
                entries = {entry["file"]: entry for entry in json.load(io.BytesIO(file.read()))}
            elif file and kind in photos:
                seen[kind] += 1
                if seen[kind] % every == 0:
                    photos[kind].append(_photo(file.read(), entries[name]))
    return photos["webfaces"], photos["negatives"]


def _photo(content: bytes, entry: dict[str, Any]) -> Photo:
    luma = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    points = np.array(entry.get("points", [])).reshape(-1, 4, 2)
    return Photo(np.asarray(luma, np.uint8), points.mean(axis=1), entry.get("teacher", []))


def search(detector: FaceDetector, photos: list[Photo]) -> dict[str, float]:
    """Return the share of labelled faces found, boxes beside them, and time per photo."""
    found = labelled = others = 0
    spent_ns = 0
    for photo in photos:
        started_ns = time.thread_time_ns()
        faces = detector.detect(Frame(photo.luma, 0, 0))
        spent_ns += time.thread_time_ns() - started_ns
        x, y = photo.middles[:, :1], photo.middles[:, 1:]
        left, top, right, bottom = faces.xyxy.T
        inside = (left < x) & (x < right) & (top < y) & (y < bottom)  # (labelled, found)
        found += int(inside.any(axis=1).sum())
        labelled += len(photo.middles)
        others += int((~inside.any(axis=0)).sum())
    return {
        "labelled": labelled,
        "recall": found / max(1, labelled),
        "others": others / len(photos),
        "ms": spent_ns / len(photos) / 1e6,
    }


def close_ups(photos: list[Photo], height: float) -> list[Photo]:
    """Cut each photo's one large face out so that it is `height` times as high as the picture."""
    cut = []
    for photo in photos:
        best = photo.teacher[0] if photo.teacher else {"score": 0.0}
        if best["score"] < 0.85 or min(best["xywh"][2:]) < 70:
            continue
        left, top, box_width, box_height = best["xywh"]
        scale = height * CLOSE_UP[1] / box_height
        middle = np.array([left + box_width / 2, top + box_height / 2])
        shift = np.array(CLOSE_UP) / 2 - scale * middle
        matrix = np.column_stack((scale * np.eye(2), shift))
        picture = cv2.warpAffine(photo.luma, matrix, CLOSE_UP, borderMode=cv2.BORDER_REFLECT)
        centre = np.array(CLOSE_UP)[np.newaxis] / 2
        cut.append(Photo(np.asarray(picture, np.uint8), centre, []))
    return cut


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--every", type=int, default=10, help="take every n-th photo")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    config = DetectorConfig()
    session = CountedOnnxSession(args.shared / "models" / "yunet_s_dynamic.onnx")
    yunet = YuNetDetector(session, config)
    web, empty = load(args.shared, args.every)
    for name, detector in (("YuNet", yunet), ("Haar", HaarDetector(config))):
        faces = search(detector, web)
        session.runs = 0
        nothing = search(detector, empty)
        print(
            f"{name}: finds {faces['recall']:.3f} of {faces['labelled']:.0f} labelled faces in "
            f"{faces['ms']:.2f} ms a photo; {nothing['others']:.3f} false alarms on each of "
            f"{len(empty)} photos without a face, {nothing['ms']:.2f} ms, looks "
            f"{session.runs / len(empty):.3f} times"
        )
    for height in FACE_HEIGHTS:
        pictures = close_ups(web, height)
        session.runs = 0
        found = search(yunet, pictures)["recall"]
        looks = session.runs / len(pictures)
        print(
            f"YuNet, faces {height:.1f} times as high as the picture: finds {found:.3f} of "
            f"{len(pictures)}, looks {looks:.2f} times"
        )


if __name__ == "__main__":
    main()
