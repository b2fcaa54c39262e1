"""A picamera2 in which faults can be injected.

Follows the Picamera2 Library manual and the package's own behaviour: requests come from a fixed
pool of buffers and the camera starves when none is given back; jobs are futures; a mapped array is
a view of the buffer, valid until the map is left; buffers outlive the camera while requests are
out; releasing twice, or after the descriptors were closed, is an error.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from typing import Any

import numpy as np

INFOS = [
    {"Model": "imx708", "Location": 2, "Rotation": 180, "Id": "/base/soc/i2c0mux/imx708", "Num": 0},
    {"Model": "Webcam", "Location": 3, "Rotation": 0, "Id": "/base/scb/pcie/usb1-1:1.0", "Num": 1},
]


class World:
    """What the fakes share, and what a test may change."""

    def __init__(self) -> None:
        self.infos = list(INFOS)
        self.open_error: Exception | None = None
        self.capture_error: Exception | None = None
        self.aligned_size: tuple[int, int] | None = None
        self.forced_duration_us: int | None = None
        self.frame_s = 0.002
        self.cameras: list[Picamera2] = []
        self.released = 0
        self.captured = 0


world = World()


class CompletedRequest:
    def __init__(self, camera: Picamera2, buffer: np.ndarray[Any, Any]) -> None:
        self.camera = camera
        self.buffer = buffer
        self.references = 1

    def release(self) -> None:
        self.references -= 1
        if self.references < 0:
            raise RuntimeError("CompletedRequest: lock now has negative ref_count")
        world.released += 1
        if self.camera.is_closed:
            raise OSError(9, "Bad file descriptor")
        with self.camera.returned:
            self.camera.free.append(self.buffer)
            self.camera.returned.notify_all()

    def get_metadata(self) -> dict[str, Any]:
        controls = self.camera.configuration["controls"]
        duration_us = world.forced_duration_us or controls["FrameDurationLimits"][0]
        return {
            "FrameDuration": duration_us,
            "ExposureTime": controls.get("ExposureTime", duration_us // 2),
        }


class MappedArray:
    def __init__(
        self, request: CompletedRequest, stream: str, reshape: bool = True, write: bool = True
    ) -> None:
        assert (stream, reshape, write) == ("lores", True, False)
        self._request = request
        self._array: np.ndarray[Any, Any] | None = None

    def __enter__(self) -> MappedArray:  # noqa: PYI034  Self came with Python 3.11
        lores = self._request.camera.configuration["lores"]
        self._array = self._request.buffer.reshape(lores["size"][1] * 3 // 2, lores["stride"])
        return self

    def __exit__(self, *_: object) -> None:
        if self._request.camera.is_closed:
            raise OSError(9, "Bad file descriptor")
        self._array = None

    @property
    def array(self) -> np.ndarray[Any, Any] | None:
        return self._array


class CaptureJob:
    def __init__(self) -> None:
        self.future: concurrent.futures.Future[CompletedRequest] = concurrent.futures.Future()


class Picamera2:
    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return world.infos

    def __init__(self, camera_num: int = 0) -> None:
        if world.open_error is not None:
            error = RuntimeError("Camera __init__ sequence did not complete.")
            error.__context__ = world.open_error
            raise error
        self.number = camera_num
        self.camera_controls = {
            "FrameDurationLimits": (8333, 1_000_000, 33333),
            "ExposureTime": (9, 500_000, 20000),
        }
        self.configuration: dict[str, Any] = {}
        self.free: list[np.ndarray[Any, Any]] = []
        self.returned = threading.Condition()
        self.is_running = False
        self.is_closed = False
        self.is_wedged = False
        self.jobs: list[CaptureJob] = []
        self.shade = 0
        self.thread = threading.Thread(target=self._loop, name="fake-libcamera", daemon=True)
        world.cameras.append(self)

    def create_preview_configuration(self, **wanted: Any) -> dict[str, Any]:
        return wanted

    def configure(self, wanted: dict[str, Any]) -> None:
        size = world.aligned_size or wanted["lores"]["size"]
        stride = -(-size[0] // 64) * 64
        lores = {"size": size, "format": wanted["lores"]["format"], "stride": stride}
        self.configuration = {**wanted, "lores": lores}
        length = stride * size[1] * 3 // 2
        self.free = [np.zeros(length, np.uint8) for _ in range(wanted["buffer_count"])]

    def camera_configuration(self) -> dict[str, Any]:
        return self.configuration

    def start(self) -> None:
        self.is_running = True
        self.thread.start()

    def stop(self) -> None:
        self.is_running = False
        if self.thread.is_alive():
            self.thread.join()

    def close(self) -> None:
        self.is_closed = True

    def capture_request(self, wait: bool | None = None) -> CaptureJob:
        assert wait is False
        job = CaptureJob()
        self.jobs.append(job)
        return job

    def wait(self, job: CaptureJob, timeout: float | None = None) -> CompletedRequest:
        return job.future.result(timeout)

    def _loop(self) -> None:
        while self.is_running:
            time.sleep(world.frame_s)
            if self.is_wedged or not self.jobs:
                continue
            if world.capture_error is not None:
                self.jobs.pop(0).future.set_exception(world.capture_error)
                continue
            with self.returned:
                if not self.free:
                    continue  # starved: every buffer is out
                buffer = self.free.pop(0)
            self._paint(buffer)
            world.captured += 1
            self.jobs.pop(0).future.set_result(CompletedRequest(self, buffer))

    def _paint(self, buffer: np.ndarray[Any, Any]) -> None:
        self.shade = self.shade % 250 + 1
        height = self.configuration["lores"]["size"][1]
        planes = buffer.reshape(height * 3 // 2, -1)
        planes[:height], planes[height:] = self.shade, 128
