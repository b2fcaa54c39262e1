"""The source of CSI cameras on a Raspberry Pi, through picamera2.

picamera2 comes from the system's packages. Its lores stream is YUV420 made by the image processor,
and its Y plane in the driver's buffer is the luma, without a copy. Calls follow the Picamera2
Library manual (Raspberry Pi Ltd), chapters 4 to 6.
"""

from __future__ import annotations

import concurrent.futures
import logging
import time
from typing import Any

import numpy as np

from fer_agent.camera.backends.planes import full_range_frame
from fer_agent.errors import CameraError
from fer_agent.vision.records import Frame, Gap

logger = logging.getLogger(__name__)

_WAIT_S = 0.5

_BUFFERS = 6
"""One in the mailbox, one being put there, one with the pipeline, one with its taker's loop, and
two with the driver so that it never waits."""

_CONTROL_DELAY_FRAMES = 8
"""Frames until the controls set at the start appear in a frame's metadata."""


class _BufferLease:
    """A completed request's buffer, released with the last array on it.

    NumPy keeps the owner of an array interface alive as long as any view of it.
    """

    def __init__(self, request: Any, mapped: Any) -> None:
        self._request = request
        self._mapped = mapped
        self.__array_interface__ = mapped.array.__array_interface__

    def __del__(self) -> None:
        try:
            self._mapped.__exit__(None, None, None)
            self._request.release()
        except OSError as error:  # the camera was closed before; this object frees the memory
            logger.debug("a buffer outlived its camera: %s", error)
        except Exception:  # a finaliser cannot raise
            logger.exception("a camera buffer could not be given back")


class PicamSource:
    """A Raspberry Pi camera; a `FrameSource`.

    Args:
        number: number of the camera, from 0.
        width: pixels of the lores stream.
        height: pixels of the lores stream.
        fps: frames a second, set as frame duration and read back.
        exposure_ms: fixed shutter time in ms; None leaves it to the camera.
    """

    def __init__(
        self,
        number: int,
        *,
        width: int,
        height: int,
        fps: float,
        exposure_ms: float | None = None,
    ) -> None:
        self._number = number
        self._name = f"the camera picam:{number}"
        self._width = width
        self._height = height
        self._fps = fps
        self._exposure_ms = exposure_ms
        self._camera: Any = None
        self._job: Any = None
        self._unchecked_frames = 0

    def open(self) -> None:
        """Start the camera in the configured mode.

        Raises:
            CameraError: picamera2 is not installed, there is no such camera, it is in use, or it
                cannot give this size, frame rate or exposure.
        """
        picamera2 = _import()
        known = picamera2.Picamera2.global_camera_info()
        if self._number >= len(known):
            raise CameraError(
                f"there is no {self._name.removeprefix('the ')}; {len(known)} were found",
                remedy="check the ribbon cable, then `rpicam-hello --list-cameras`",
            )
        try:
            self._camera = picamera2.Picamera2(self._number)
            self._configure()
            self._camera.start()
        except CameraError:
            self.close()
            raise
        # libcamera's errors arrive as RuntimeError; IndexError when it vanished just now.
        except (RuntimeError, IndexError, ValueError) as error:
            self.close()
            raise _explain(self._name, error) from error
        self._unchecked_frames = _CONTROL_DELAY_FRAMES

    def read(self) -> Frame | Gap | None:
        """Wait a moment for the next picture; a request that took longer stays in the queue."""
        from picamera2 import MappedArray

        if self._job is None:
            self._job = self._camera.capture_request(wait=False)
        try:
            request = self._camera.wait(self._job, timeout=_WAIT_S)
        # The same class from Python 3.11 on.
        except (concurrent.futures.TimeoutError, TimeoutError) as error:
            raise TimeoutError from error
        except (RuntimeError, concurrent.futures.CancelledError) as error:
            self._job = None
            raise _explain(self._name, error) from error
        self._job = None
        captured_ns = time.monotonic_ns()
        mapped = MappedArray(request, "lores", write=False)
        mapped.__enter__()  # left by the lease, when the last array on the buffer is gone
        planes = np.asarray(_BufferLease(request, mapped))
        if self._unchecked_frames:
            self._read_back(request.get_metadata())
        return full_range_frame(planes, self._width, captured_ns)

    def close(self) -> None:
        """Stop the camera and release it."""
        camera, self._camera, self._job = self._camera, None, None
        if camera is None:
            return
        try:
            camera.stop()
            camera.close()
        except RuntimeError as error:
            logger.warning("%s did not stop cleanly: %s", self._name, error)

    def _configure(self) -> None:
        duration_us = round(1e6 / self._fps)
        self._check_limits("FrameDurationLimits", duration_us, f"{self._fps:g} fps", " us a frame")
        controls: dict[str, Any] = {"FrameDurationLimits": (duration_us, duration_us)}
        if self._exposure_ms is not None:
            exposure_us = round(self._exposure_ms * 1e3)
            text = f"an exposure of {self._exposure_ms:g} ms"
            self._check_limits("ExposureTime", exposure_us, text, " us")
            controls["ExposureTime"] = exposure_us
        size = (self._width, self._height)
        # Preview has full-range colours (sYCC), so that Y is luma as the networks take it.
        self._camera.configure(
            self._camera.create_preview_configuration(
                main={"size": size},
                lores={"size": size, "format": "YUV420"},
                controls=controls,
                buffer_count=_BUFFERS,
                queue=False,
            )
        )
        lores = self._camera.camera_configuration()["lores"]
        if tuple(lores["size"]) != size or lores["format"] != "YUV420":
            offered = "x".join(str(pixels) for pixels in lores["size"])
            raise CameraError(
                f"{self._name} cannot give {self._width}x{self._height} in YUV420",
                remedy=f"set the camera's width and height to {offered}, which it chose instead",
            )

    def _check_limits(self, control: str, value: float, wanted: str, unit: str) -> None:
        least, most, *_ = self._camera.camera_controls[control]
        if not least <= value <= most:
            raise CameraError(
                f"{self._name} cannot give {wanted}",
                remedy=f"stay within what its sensor mode offers: {least} to {most}{unit}",
            )

    def _read_back(self, metadata: dict[str, Any]) -> None:
        """Compare a frame's metadata with the configuration, once the controls are in effect."""
        self._unchecked_frames -= 1
        if self._unchecked_frames:
            return
        duration_us = metadata["FrameDuration"]
        if abs(duration_us * self._fps / 1e6 - 1) > 0.1:
            raise CameraError(
                f"{self._name} gives {1e6 / duration_us:.1f} fps instead of {self._fps:g}",
                remedy="set the camera's fps to that, or choose a smaller picture",
            )
        exposure_ms = metadata["ExposureTime"] / 1e3
        if self._exposure_ms is not None and abs(exposure_ms / self._exposure_ms - 1) > 0.1:
            raise CameraError(
                f"{self._name} exposes for {exposure_ms:.2f} ms instead of {self._exposure_ms:g}",
                remedy="set `exposure_ms` to that, or leave it out",
            )


def _import() -> Any:
    try:
        import picamera2
    except ImportError as error:
        raise CameraError(
            f"Raspberry Pi cameras need picamera2, which cannot be imported: {error}",
            remedy="install it with `sudo apt-get install python3-picamera2`, and let the agent's "
            "virtual environment see it (`python3 -m venv --system-site-packages`)",
        ) from error
    return picamera2


def _explain(name: str, error: BaseException) -> CameraError:
    reasons = [str(error)]
    if error.__context__ is not None:  # libcamera's message is in picamera2's context
        reasons.append(str(error.__context__))
    text = "; ".join(reasons)
    if "busy" in text.lower() or "acquire" in text.lower():
        return CameraError(
            f"{name} is in use by another program",
            remedy="stop that program; `sudo fuser -v /dev/media*` names it",
        )
    return CameraError(
        f"{name} failed: {text}",
        remedy="check the ribbon cable, then `rpicam-hello --list-cameras`",
    )
