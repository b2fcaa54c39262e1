"""Real pictures and the real network for the detectors' tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from fer_agent.inference.onnx import OnnxSession
from fer_agent.vision.records import Frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fer_agent.vision.records import Bgr


@pytest.fixture
def as_frame() -> Callable[[Bgr], Frame]:
    """A function that makes a frame of a colour picture."""

    def make(bgr: Bgr) -> Frame:
        luma = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY), np.uint8)
        return Frame(luma=luma, captured_ns=0, number=0, to_bgr=lambda: bgr)

    return make


@pytest.fixture(scope="session")
def yunet_file(shared: Path) -> Path:
    return shared / "models" / "yunet_s_dynamic.onnx"


@pytest.fixture(scope="session")
def yunet(yunet_file: Path) -> OnnxSession:
    return OnnxSession(yunet_file)


@pytest.fixture(scope="session")
def astronaut(shared: Path) -> Bgr:
    """Portrait of one person, (512, 512, 3)."""
    return np.asarray(cv2.imread(str(shared / "media" / "astronaut.png")), np.uint8)


@pytest.fixture(scope="session")
def clip_frames(shared: Path) -> list[Bgr]:
    """Every seventh frame of three clips, with none to two faces of 15 to 94 pixels."""
    frames: list[Bgr] = []
    for path in sorted((shared / "media").glob("*.gif")):
        capture = cv2.VideoCapture(str(path))
        clip = []
        while (read := capture.read())[0]:
            clip.append(np.asarray(read[1], np.uint8))
        capture.release()
        frames += clip[::7]
    return frames
