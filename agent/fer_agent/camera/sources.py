"""The factory of cameras and sources; a backend is imported only when it is chosen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from fer_agent.camera.contract import FrameSource
from fer_agent.camera.threaded import ThreadedCamera
from fer_agent.config.model import CameraConfig
from fer_agent.errors import CameraError
from fer_agent.vision.records import CameraStatus

_NUMBERED = re.compile(r"(picam|csi):(\d+)")
_STREAM_SCHEMES = ("rtsp", "rtsps", "http", "https")


def backend_of(source: str) -> str:
    """Return the backend of a source: v4l2, picam, csi, stream or replay.

    Raises:
        CameraError: the address has an unknown scheme.
    """
    if source.isdecimal() or source.startswith("/dev/"):
        return "v4l2"
    if numbered := _NUMBERED.fullmatch(source):
        return numbered[1]
    scheme, separator, _ = source.partition("://")
    if separator and scheme not in _STREAM_SCHEMES:
        raise CameraError(
            f"there is no camera of the kind {scheme}://",
            remedy=f"use one of {', '.join(f'{one}://' for one in _STREAM_SCHEMES)}, a device, "
            "picam:0, csi:0, or a path",
        )
    return "stream" if separator else "replay"


def make_source(config: CameraConfig) -> FrameSource:
    """Make the source of a camera's configuration, not yet opened; raises as `backend_of`."""
    source, width, height, fps = config.source, config.width, config.height, config.fps
    backend = backend_of(source)
    if backend == "v4l2":
        from fer_agent.camera.backends.v4l2 import V4l2Source

        return V4l2Source(source, width=width, height=height, fps=fps)
    if backend == "picam":
        from fer_agent.camera.backends.picam import PicamSource

        number = int(source.removeprefix("picam:"))
        return PicamSource(
            number, width=width, height=height, fps=fps, exposure_ms=config.exposure_ms
        )
    if backend == "csi":
        from fer_agent.camera.backends.csi import csi_source

        return csi_source(int(source.removeprefix("csi:")), width=width, height=height, fps=fps)
    if backend == "stream":
        from fer_agent.camera.backends.stream import StreamSource

        return StreamSource(
            source,
            username=config.username,
            password_file=config.password_file,
            transport=config.transport,
        )
    from fer_agent.camera.backends.replay import ReplaySource

    return ReplaySource(Path(source), fps=fps, pace=config.pace, loop=config.loop)


def make_camera(
    name: str, config: CameraConfig, on_status: Callable[[CameraStatus], None]
) -> ThreadedCamera:
    """Make the camera of a configuration section, not yet opened.

    Files end and raise; every other camera is reopened for ever. Raises as `backend_of`.
    """
    live = backend_of(config.source) != "replay"
    return ThreadedCamera(
        make_source(config),
        name=name,
        gap_s=config.gap_s,
        lossless=not live and config.pace == "fast",
        live=live,
        on_status=on_status,
        deadline_s=config.deadline_s,
        frozen_s=config.frozen_s,
    )
