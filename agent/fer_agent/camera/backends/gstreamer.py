"""The source of pictures from a GStreamer pipeline in a child process.

OpenCV's wheel has no GStreamer, and a child whose driver hangs can be killed, unlike a thread.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence

import cv2

from fer_agent.camera.backends.child import ChildEndedError, PictureChild
from fer_agent.camera.backends.planes import full_range_frame, yuv_frame
from fer_agent.errors import CameraError
from fer_agent.vision.records import Frame, Gap

_PROGRAM = "gst-launch-1.0"
_WAIT_S = 0.25

_PACKAGES = {"nvarguscamerasrc": "nvidia-l4t-gstreamer", "nvvidconv": "nvidia-l4t-gstreamer"}
"""Packages of the elements that are not among the usual plugins."""


class GstSource:
    """The raw I420 pictures of a pipeline; a `FrameSource`.

    Args:
        elements: the pipeline up to raw video, one argument each for gst-launch-1.0; conversion,
            caps and sink are added here.
        width: pixels, a multiple of eight, so that no row is padded.
        height: pixels, even.
        name: its name in error messages.
        endless: whether the end of the pictures is a fault; else it is a file's end.
        full_range: whether black is 0, as from JPEG, instead of 16. GStreamer 1.22 does not
            convert levels between pictures that are I420 already.
    """

    def __init__(
        self,
        elements: Sequence[str],
        *,
        width: int,
        height: int,
        name: str,
        endless: bool = True,
        full_range: bool = False,
    ) -> None:
        self._elements = tuple(elements)
        self._width = width
        self._height = height
        self._name = name
        self._endless = endless
        self._full_range = full_range
        self._child: PictureChild | None = None

    def command(self, output: int) -> list[str]:
        """Return the command line that writes pictures to the file descriptor `output`."""
        caps = f"video/x-raw,format=I420,width={self._width},height={self._height}"
        sink = ["fdsink", f"fd={output}", "sync=false"]
        return [_PROGRAM, "-q", *self._elements, "!", "videoconvert", "!", caps, "!", *sink]

    def open(self) -> None:
        """Start the pipeline.

        Raises:
            CameraError: GStreamer is not installed, or the size cannot be read unpadded.
        """
        if self._width % 8 or self._height % 2:
            raise CameraError(
                f"{self._name} cannot give {self._width}x{self._height}",
                remedy="choose a width that is a multiple of 8 and an even height",
            )
        try:
            self._child = PictureChild(self.command, self._width * self._height * 3 // 2)
        except FileNotFoundError as error:
            raise CameraError(
                f"{self._name} needs GStreamer, and {_PROGRAM} is not installed",
                remedy="install it with `sudo apt-get install gstreamer1.0-tools "
                "gstreamer1.0-plugins-base gstreamer1.0-plugins-good`",
            ) from error
        except OSError as error:
            raise CameraError(
                f"cannot start {_PROGRAM} for {self._name}: {error.strerror}",
                remedy="check that the program can be run by the agent's user",
            ) from error

    def read(self) -> Frame | Gap | None:
        """Wait a moment for the next picture; return None at the end of a pipeline that may end."""
        if self._child is None:
            return None
        try:
            raw = self._child.read(_WAIT_S)
        except ChildEndedError as ended:
            if not self._endless and "ERROR" not in ended.errors:
                return None
            raise self._explain(ended.errors) from ended
        captured_ns = time.monotonic_ns()
        planes = raw.reshape(self._height * 3 // 2, self._width)
        if self._full_range:
            return full_range_frame(planes, self._width, captured_ns)
        return yuv_frame(planes, cv2.COLOR_YUV2BGR_I420, captured_ns)

    def close(self) -> None:
        """End the pipeline."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _explain(self, errors: str) -> CameraError:
        missing = re.search(r'no element "([\w-]+)"', errors)
        if missing:
            element = missing[1]
            package = _PACKAGES.get(element, "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad")
            return CameraError(
                f"{self._name} needs GStreamer's element {element}, which is not installed",
                remedy=f"install it with `sudo apt-get install {package}`",
            )
        said = re.search(r"ERROR: (?:from element \S+: )?(.+)", errors)
        why = said[1].rstrip(".") if said else "it ended without saying why"
        by_hand = shlex.join([_PROGRAM, *self._elements, "!", "fakesink"])
        return CameraError(
            f"{self._name} stopped: {why}",
            remedy=f"check the camera's connection; `{by_hand}` shows all that GStreamer says",
        )
