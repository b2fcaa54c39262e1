"""The test of a camera's real frame rate, picture quality and smallest usable faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from fer_agent.camera.sources import backend_of, make_camera
from fer_agent.config.model import CameraConfig
from fer_agent.errors import CameraError
from fer_agent.vision.ports import FaceDetector
from fer_agent.vision.records import CameraState, CameraStatus, Frame

SMALLEST_DETECTED_PX = 12.0
"""Height in the detector's input below which faces are mostly missed: YuNet is trained for 10 to
300 pixels (Wu et al., 2023, doi:10.1007/s11633-023-1423-y), and the smallest are found badly."""

CROP_PX = 48.0
"""Height of a face below which its crop is enlarged for the network."""

FIRST_PICTURE_S = 15.0
"""Time for the first picture: a network camera may take ten seconds to open or to fail."""

_DARK, _BRIGHT, _BLURRED, _LATE = 40.0, 215.0, 40.0, 0.8


@dataclass(frozen=True, slots=True)
class CameraReport:
    """Measurements of a few seconds of a camera.

    Attributes:
        width: pixels.
        height: pixels.
        fps: pictures a second from the camera.
        frames: pictures that were taken.
        dropped: pictures that were replaced before they were taken.
        brightness: mean luma, 0 to 255.
        sharpness: variance of the Laplacian of the luma scaled to 320 pixels.
        smallest_face_px: height of the smallest face that would be found.
        smallest_good_face_px: height of the smallest face whose crop is not scaled up.
        faces: faces found in the last picture, as heights in pixels; None without a detector.
        faults: reasons why pictures stopped before the time was over.
        advice: possible improvements, one sentence each.
    """

    width: int
    height: int
    fps: float
    frames: int
    dropped: int
    brightness: float
    sharpness: float
    smallest_face_px: float
    smallest_good_face_px: float
    faces: tuple[float, ...] | None
    faults: tuple[str, ...]
    advice: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the report as text, a finding a line."""
        dropped = f"{self.dropped} of {self.frames + self.dropped} dropped"
        found, read = f"{self.smallest_face_px:.0f} px", f"{self.smallest_good_face_px:.0f} px"
        lines = [
            f"picture     {self.width}x{self.height}, {self.fps:g} frames a second, {dropped}",
            f"light       {self.brightness:.0f} of 255, sharpness {self.sharpness:.0f}",
            f"faces       found from {found} high, read well from {read}",
        ]
        if self.faces is not None:
            seen = ", ".join(f"{height:.0f} px" for height in self.faces)
            lines.append(f"now         {seen or 'no face in the last picture'}")
        lines += [f"fault       {fault}" for fault in self.faults]
        return lines + [f"advice      {sentence}" for sentence in self.advice]


def probe(
    name: str,
    config: CameraConfig,
    *,
    seconds: float,
    long_side: int,
    detector: FaceDetector | None = None,
) -> tuple[CameraReport, Frame]:
    """Open a camera, measure its pictures for a while and close it.

    Args:
        name: the camera's name.
        config: its section of the configuration; the first fault ends the probe.
        seconds: time to measure, from the first picture on.
        long_side: longer side of the detector's input, in pixels.
        detector: searches the last picture for faces.

    Returns:
        The report, and the last picture.

    Raises:
        CameraError: no picture came.
    """
    faults: list[CameraStatus] = []

    def on_status(status: CameraStatus) -> None:
        if status.state is CameraState.OFFLINE:
            faults.append(status)
            camera.close()

    patient = config.model_copy(update={"gap_s": max(config.gap_s, FIRST_PICTURE_S)})
    camera = make_camera(name, patient, on_status)
    samples = _Samples()
    try:
        for item in camera.frames():
            if isinstance(item, Frame):
                samples.add(item)
            if samples.span_s >= seconds:
                break
    finally:
        camera.close()
    frame = samples.last
    if frame is None:
        reason = faults[0].reason if faults else f"the camera {name} gave no picture"
        remedy = "run `fer-agent camera list` to see what is there and what it offers"
        raise CameraError(reason, remedy=(faults[0].remedy if faults else "") or remedy)
    wanted = None if backend_of(config.source) in ("replay", "stream") else config.fps
    faces = None
    if detector is not None:
        boxes = detector.detect(frame).xyxy
        faces = tuple(round(float(bottom - top), 1) for _, top, _, bottom in boxes)
    dropped = camera.stats().dropped
    reasons = tuple(fault.reason for fault in faults)
    return samples.report(dropped, long_side, faces, wanted, reasons), frame


class _Samples:
    """The figures kept of each picture."""

    def __init__(self) -> None:
        self.last: Frame | None = None
        self._times_ns: list[int] = []
        self._brightness: list[float] = []
        self._sharpness: list[float] = []

    @property
    def span_s(self) -> float:
        return (self._times_ns[-1] - self._times_ns[0]) / 1e9 if self._times_ns else 0.0

    def add(self, frame: Frame) -> None:
        self.last = frame
        self._times_ns.append(frame.captured_ns)
        self._brightness.append(float(frame.luma.mean()))
        self._sharpness.append(_sharpness(frame))

    def report(
        self,
        dropped: int,
        long_side: int,
        faces: tuple[float, ...] | None,
        wanted_fps: float | None,
        faults: tuple[str, ...],
    ) -> CameraReport:
        assert self.last is not None  # noqa: S101  checked by the caller
        width, height = self.last.size
        taken, span_s = len(self._times_ns), self.span_s
        rate = (taken + dropped - 1) / span_s if span_s > 0 else 0.0
        brightness = float(np.mean(self._brightness))
        sharpness = float(np.median(self._sharpness))
        smallest_px = SMALLEST_DETECTED_PX * max(width, height) / long_side
        return CameraReport(
            width=width,
            height=height,
            fps=round(rate, 2),
            frames=taken,
            dropped=dropped,
            brightness=round(brightness, 1),
            sharpness=round(sharpness, 1),
            smallest_face_px=round(smallest_px, 1),
            smallest_good_face_px=round(max(CROP_PX, smallest_px), 1),
            faces=faces,
            faults=faults,
            advice=_advise(rate, wanted_fps, brightness, sharpness),
        )


def save_picture(frame: Frame, path: Path) -> None:
    """Write a picture to a path that the user named.

    Raises:
        CameraError: the path cannot be written, or its suffix names no kind of image.
    """
    try:
        written = cv2.imwrite(str(path), frame.bgr())
    except cv2.error:
        written = False
    if not written:
        raise CameraError(
            f"cannot write a picture to {path}",
            remedy="name a .jpg or .png in a folder that exists and can be written to",
        )


def _sharpness(frame: Frame) -> float:
    luma = frame.luma
    scale = 320 / max(luma.shape)
    if scale < 1:
        luma = np.asarray(
            cv2.resize(luma, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8
        )
    return float(cv2.Laplacian(luma, cv2.CV_32F).var())


def _advise(
    rate: float, wanted: float | None, brightness: float, sharpness: float
) -> tuple[str, ...]:
    advice = []
    if wanted is not None and 0 < rate < _LATE * wanted:
        advice.append(f"only {rate:.1f} of {wanted:g} frames a second came: use less resolution")
    if brightness < _DARK:
        advice.append("the picture is dark: add light, in front of the faces")
    elif brightness > _BRIGHT:
        advice.append("the picture is overexposed: turn the camera away from the light")
    if sharpness < _BLURRED:
        advice.append("the picture is blurred: focus the lens and clean it")
    return tuple(advice)
