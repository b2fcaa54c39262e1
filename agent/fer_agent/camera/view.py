"""The view of a camera's picture by region of interest, rotation and flip.

Faces are found in the view, and events give their boxes in the camera's original picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import CameraConfig
from fer_agent.vision.ports import Publisher
from fer_agent.vision.records import EmotionEvent, Float32Array, Frame, Gap

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class CameraView:
    """The part of the picture that is used, and its orientation.

    Attributes:
        rotate: degrees clockwise, after cutting out the region.
        flip: mirroring, after rotating.
        roi: left, top, right, bottom as shares of the original picture.
    """

    rotate: Literal[0, 90, 180, 270] = 0
    flip: Literal["none", "horizontal", "vertical"] = "none"
    roi: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)

    @classmethod
    def of(cls, config: CameraConfig) -> CameraView | None:
        """Make the view of a camera's configuration; None when it changes nothing."""
        roi = config.roi or [0.0, 0.0, 1.0, 1.0]
        view = cls(config.rotate, config.flip, (roi[0], roi[1], roi[2], roi[3]))
        return None if view == cls() else view

    def apply(self, frame: Frame) -> Frame:
        """Return the frame in this view; pixels are copied only where turning needs it."""
        to_bgr = frame.to_bgr
        return replace(
            frame,
            luma=self._turn(frame.luma),
            to_bgr=None if to_bgr is None else lambda: self._turn(to_bgr()),
            to_scaled_bgr=None,
        )

    def to_original(self, xyxy: Float32Array, original: Size) -> Float32Array:
        """Convert boxes from this view to the camera's picture.

        Args:
            xyxy: float32 (..., 4), pixels of the view.
            original: size of the camera's picture.

        Returns:
            float32 (..., 4), pixels of the camera's picture.
        """
        left, top, right, bottom = self._pixels(original)
        width, height = right - left, bottom - top
        if self.rotate in (90, 270):
            width, height = height, width
        x1, y1, x2, y2 = np.moveaxis(xyxy, -1, 0)
        if self.flip == "horizontal":
            x1, x2 = width - x2, width - x1
        elif self.flip == "vertical":
            y1, y2 = height - y2, height - y1
        for _ in range(self.rotate // 90):  # a quarter turn back, anticlockwise
            x1, y1, x2, y2 = y1, width - x2, y2, width - x1
            width, height = height, width
        return np.stack([x1 + left, y1 + top, x2 + left, y2 + top], axis=-1).astype(np.float32)

    def _turn(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        left, top, right, bottom = self._pixels((image.shape[1], image.shape[0]))
        image = np.rot90(image[top:bottom, left:right], -self.rotate // 90)
        if self.flip == "horizontal":
            image = image[:, ::-1]
        elif self.flip == "vertical":
            image = image[::-1]
        return np.ascontiguousarray(image)

    def _pixels(self, original: Size) -> tuple[int, int, int, int]:
        """Return the region in whole pixels, at least one."""
        width, height = original
        left, top = (
            min(int(share * size), size - 1)
            for share, size in zip(self.roi, original, strict=False)
        )
        right, bottom = round(self.roi[2] * width), round(self.roi[3] * height)
        return left, top, max(right, left + 1), max(bottom, top + 1)


class ViewedCamera:
    """A camera seen through a view; satisfies `ports.Camera`.

    Only frames that are taken are turned.
    """

    def __init__(self, camera: ThreadedCamera, view: CameraView) -> None:
        self._camera = camera
        self._view = view
        self.original: Size | None = None
        self.close = camera.close

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the camera's frames in this view, and its gaps."""
        for item in self._camera.frames():
            if isinstance(item, Frame):
                self.original = item.size
                yield self._view.apply(item)
            else:
                yield item


class OriginalCoordinates:
    """A publisher of events with boxes in the original picture; satisfies `ports.Publisher`."""

    def __init__(self, publisher: Publisher, camera: ViewedCamera, view: CameraView) -> None:
        self._publisher = publisher
        self._camera = camera
        self._view = view

    def publish(self, event: EmotionEvent) -> None:
        """Accept one event and return at once."""
        original = self._camera.original
        if original is not None:
            xyxy = self._view.to_original(event.xyxy, original)
            event = replace(event, xyxy=xyxy, frame_size=original)
        self._publisher.publish(event)
