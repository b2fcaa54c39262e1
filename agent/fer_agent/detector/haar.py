"""The Haar cascade inside OpenCV's wheel, the fallback while no detector file is there.

It finds frontal faces only (69 % of 822 labelled faces in web photos, YuNet 92 %), takes sixteen
times YuNet's time and gives no landmarks: `benchmarks/detector.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cv2
import cv2.data
import numpy as np

from fer_agent.config.model import DetectorConfig
from fer_agent.errors import ModelFileError
from fer_agent.vision.records import Faces, Float32Array, Frame

_CASCADE = "haarcascade_frontalface_alt2.xml"
"""The one of OpenCV's three frontal cascades that finds most faces at few false alarms."""

_SCALE_STEP: Final = 1.1
_NEIGHBOURS: Final = 3
_SMALLEST_PX: Final = 24
"""Side of the smallest window, in pixels of the scaled picture; the cascade was trained on 20."""

_WEIGHT_AT_HALF: Final = 54.94
_WEIGHT_SLOPE: Final = 2.96
"""Logistic map from the last stage's weight to the chance of a face.

Fitted on the cascade's results in 427 labelled web photos and 960 without a face: at a score of
0.6 it keeps 88 % of the faces of 32 pixels and more, with one false alarm in 60 photos.
"""

_YUNET_PER_HAAR: Final = np.array([0.83, 1.09], np.float32)
"""Width and height of YuNet's box around the same face, in sides of the cascade's square."""

_YUNET_LOWER: Final = np.float32(0.015)
"""Distance from the square's centre down to that box's, in the same unit."""


class HaarDetector:
    """Detector of frontal faces with OpenCV's cascade; satisfies `FaceDetector`.

    Args:
        config: `long_side` and `score` are used, `nms_iou` and `threads` are not.

    Raises:
        ModelFileError: OpenCV was installed without its cascades.
    """

    def __init__(self, config: DetectorConfig) -> None:
        self._config = config
        path = Path(cv2.data.haarcascades) / _CASCADE
        self._cascade = cv2.CascadeClassifier(str(path))
        if self._cascade.empty():
            raise ModelFileError(
                f"OpenCV {cv2.__version__} has no usable face cascade at {path}",
                remedy="reinstall opencv-python-headless, 4.10 or newer but below 5",
            )

    def detect(self, frame: Frame) -> Faces:
        """Find the frontal faces in one frame's luma.

        Returns:
            Faces in frame pixels, best score first, boxes in YuNet's framing, landmarks NaN. The
            score is the chance of a face, from the last stage's weight. N may be 0.
        """
        width, height = frame.size
        scale = self._config.long_side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(frame.luma, size, interpolation=cv2.INTER_LINEAR)
        squares, _, weights = self._cascade.detectMultiScale3(
            picture,
            _SCALE_STEP,
            _NEIGHBOURS,
            minSize=(_SMALLEST_PX, _SMALLEST_PX),
            outputRejectLevels=True,
        )
        if not len(squares):
            return Faces.none(frame.size)
        score = _chance(np.asarray(weights, np.float32).ravel())
        order = np.argsort(-score, kind="stable")
        order = order[score[order] >= self._config.score]
        stretch = np.array([width / size[0], height / size[1]] * 2, np.float32)
        return Faces(
            xyxy=_as_yunet(np.asarray(squares, np.float32)[order]) * stretch,
            score=score[order],
            landmarks=np.full((len(order), 5, 2), np.nan, np.float32),
            frame_size=frame.size,
        )


def _chance(weight: Float32Array) -> Float32Array:
    chance: Float32Array = 1 / (1 + np.exp(_WEIGHT_SLOPE * (_WEIGHT_AT_HALF - weight)))
    return chance.astype(np.float32, copy=False)


def _as_yunet(xywh: Float32Array) -> Float32Array:
    side = xywh[:, 2:]
    centre = xywh[:, :2] + side / 2
    centre[:, 1] += _YUNET_LOWER * side[:, 1]
    half = side * _YUNET_PER_HAAR / 2
    return np.concatenate((centre - half, centre + half), axis=1)
