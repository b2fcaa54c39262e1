"""The cameras of this device, with their sources for the configuration and their modes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from fer_agent.camera.backends.v4l2_device import Mode, V4l2Device, device_nodes, query
from fer_agent.errors import CameraError

_DEVICES = Path("/dev")
_BY_ID = Path("/dev/v4l/by-id")

_CSI_DRIVERS = ("tegra-video", "tegra-camrtc-capture-vi")
_PI_DRIVERS = ("unicam", "bcm2835-isp", "bcm2835-codec", "rp1-cfe", "pispbe", "rpi-hevc-dec")
"""Drivers whose nodes are parts of a camera that another backend takes as a whole."""


@dataclass(frozen=True, slots=True)
class FoundCamera:
    """A camera, or a device that may be one and cannot be used.

    Attributes:
        source: the camera's `source` in the configuration; where there is one, a name that does
            not depend on the order of plugging.
        backend: v4l2, picam or csi.
        name: the maker's name.
        modes: its pixel formats, sizes and rates; empty where unknown.
        problem: the reason why it cannot be used now; empty when it can.
        remedy: the action to take about the problem.
    """

    source: str
    backend: str
    name: str
    modes: tuple[Mode, ...] = ()
    problem: str = ""
    remedy: str = ""


def find_cameras(devices: Path = _DEVICES, by_id: Path = _BY_ID) -> list[FoundCamera]:
    """List the cameras that are plugged into this device; network cameras are not found."""
    answers = [(node, _ask(node)) for node in device_nodes(devices)]
    infos = [info for _, info in answers if isinstance(info, V4l2Device)]
    found = [
        FoundCamera(stable_name(info.path, by_id), "v4l2", info.card, info.modes)
        for info in infos
        if info.driver not in (*_CSI_DRIVERS, *_PI_DRIVERS)
    ]
    found += [
        FoundCamera(path, "v4l2", Path(path).name, (), str(error), error.remedy)
        for path, error in answers
        if isinstance(error, CameraError) and "permission" in str(error)
    ]
    return found + _csi_cameras(infos) + _pi_cameras()


def stable_name(path: str, by_id: Path = _BY_ID) -> str:
    """Return the link in /dev/v4l/by-id that leads to a device node, or the node itself."""
    target = Path(path).resolve()
    for link in sorted(by_id.glob("*")):
        if link.resolve() == target:
            return str(link)
    return path


def _ask(path: str) -> V4l2Device | CameraError:
    try:
        return query(path)
    except CameraError as error:
        return error


def _csi_cameras(infos: list[V4l2Device]) -> list[FoundCamera]:
    sensors = [info for info in infos if info.driver in _CSI_DRIVERS]
    problem = "" if shutil.which("gst-launch-1.0") else "GStreamer is not installed"
    remedy = "install it with `sudo apt-get install gstreamer1.0-tools`" if problem else ""
    return [
        FoundCamera(f"csi:{number}", "csi", info.card, info.modes, problem, remedy)
        for number, info in enumerate(sensors)
    ]


def _pi_cameras() -> list[FoundCamera]:
    try:
        from picamera2 import Picamera2
    except ImportError:
        return []
    return [
        FoundCamera(f"picam:{one['Num']}", "picam", one["Model"])
        for one in Picamera2.global_camera_info()
        if "usb" not in one["Id"]  # libcamera lists webcams too; those are V4L2's
    ]
