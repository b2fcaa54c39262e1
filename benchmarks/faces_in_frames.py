"""Accuracy on live faces: FER2013's test faces pasted into photos, found and classified.

For each size the share of faces that YuNet finds, the classifier's accuracy on the crops that the
agent cuts around them, and its accuracy on the very same faces as the data set has them. Photos are
taken as they are, with a longer side of up to 352 pixels, which the detector scales to 320.

    python benchmarks/faces_in_frames.py --shared ../shared [--model models/microexpnet-fer2013]
        [--every 10] [--json]

A model trained on FER+ is evaluated on FER+'s votes, as `fer-train evaluate` does.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from fer_agent.config.model import DetectorConfig
from fer_agent.detector.yunet import YuNetDetector
from fer_agent.inference.onnx import OnnxSession
from fer_agent.models.store import read_model
from fer_agent.vision.classifier import CropClassifier
from fer_trainer.data.faceset import Split
from fer_trainer.data.open import Source, open_faces
from fer_trainer.evaluate import data_of
from fer_trainer.pasted import SIDES_PX, AtSize, backgrounds, measure, own_accuracy


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--model", type=Path, default=Path("models/microexpnet-ferplus"))
    parser.add_argument("--precision", default="fp32", help="fp32, int8 or fp16")
    parser.add_argument("--sides", default=",".join(map(str, SIDES_PX)), help="pixels")
    parser.add_argument("--every", type=int, default=1, help="take every n-th face")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    data = args.shared / "data"
    model = read_model(args.model)
    manifest = model.manifest
    classifier = CropClassifier(OnnxSession(model.verified_file(args.precision)), manifest)
    yunet = OnnxSession(args.shared / "models" / "yunet_s_dynamic.onnx")
    source = Source(data / "fer2013.tar.xz", votes=data / "ferplus_votes.csv")
    faces = open_faces(source, data_of(manifest)).only(Split.TEST)
    faces = faces.take(np.arange(0, len(faces), args.every))
    sides = [int(side) for side in args.sides.split(",")]
    photos = backgrounds(data / "faces.tar.xz", largest_px=max(sides))
    detector = YuNetDetector(yunet, DetectorConfig())
    found = measure(faces, photos, detector, classifier, sides_px=sides)
    whole = own_accuracy(faces, classifier)
    if args.json:
        told = {"model": manifest.name, "dataset": faces.name, "n": len(faces)}
        rows = [{**asdict(one), "lost_points": one.lost_points} for one in found]
        print(json.dumps({"schema_version": 1, **told, "own_accuracy": whole, "sizes": rows}))
    else:
        print(table(f"{manifest.name} on {faces.name}", len(faces), whole, found))


def table(title: str, count: int, whole: float, found: list[AtSize]) -> str:
    """Write the figures as Markdown."""
    lines = [
        f"{title}: {count:,} test faces, accuracy {whole:.3f} as they are",
        "",
        "| Face in the frame | Found | Accuracy, found | The same as they are | Points lost |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.side_px} px | {one.found:.1%} | {one.accuracy:.3f} | {one.own_accuracy:.3f} "
        f"| {one.lost_points:+.1f} |"
        for one in found
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
