"""Queries of Video4Linux devices through the kernel's ioctls.

Source: the kernel's userspace API, include/uapi/linux/videodev2.h; layouts are those of 64-bit
and 32-bit Linux alike.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fer_agent.errors import CameraError

_CAPABILITY = struct.Struct("=16s32s32s3I12x")
_FORMAT = struct.Struct("=3I32sI16x")
_FRAME_SIZE = struct.Struct("=3I6I8x")
_FRAME_INTERVAL = struct.Struct("=5I6I8x")
_REQUEST_BUFFERS = struct.Struct("=5I")

_CAPTURE, _CAPTURE_MPLANE, _DEVICE_CAPS = 0x1, 0x1000, 0x8000_0000
_TYPE_CAPTURE, _TYPE_CAPTURE_MPLANE = 1, 9
_MEMORY_MMAP = 1
_DISCRETE = 1

_REMEDY_LIST = "run `fer-agent camera list` to see what is there"


def _ioctl_code(direction: int, number: int, size: int) -> int:
    """Return an ioctl's number as in asm-generic/ioctl.h; direction 2 reads, 3 writes and reads."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


_QUERYCAP = _ioctl_code(2, 0, _CAPABILITY.size)
_ENUM_FMT = _ioctl_code(3, 2, _FORMAT.size)
_REQBUFS = _ioctl_code(3, 8, _REQUEST_BUFFERS.size)
_ENUM_FRAMESIZES = _ioctl_code(3, 74, _FRAME_SIZE.size)
_ENUM_FRAMEINTERVALS = _ioctl_code(3, 75, _FRAME_INTERVAL.size)


@dataclass(frozen=True, slots=True)
class Mode:
    """A pixel format and size of a device.

    Attributes:
        fourcc: pixel format such as YUYV or MJPG.
        width: pixels; the largest where the device takes any size.
        height: pixels; likewise.
        fps: highest frame rate at this size; 0 where unknown.
        min_width: smallest width where the device takes any size, else `width`.
        min_height: likewise.
    """

    fourcc: str
    width: int
    height: int
    fps: float
    min_width: int
    min_height: int

    def takes(self, width: int, height: int) -> bool:
        """Tell whether this mode has the size."""
        return self.min_width <= width <= self.width and self.min_height <= height <= self.height

    @property
    def size_and_rate(self) -> str:
        """The size, or range of sizes, and the highest frame rate, for people."""
        size = f"{self.width}x{self.height}"
        if (self.min_width, self.min_height) != (self.width, self.height):
            size = f"{self.min_width}x{self.min_height} to {size}"
        rate = f" at {self.fps:g} fps" if self.fps else ""
        return f"{size}{rate}"

    def __str__(self) -> str:
        return f"{self.fourcc} {self.size_and_rate}"


@dataclass(frozen=True, slots=True)
class V4l2Device:
    """A capture device.

    Attributes:
        path: device node.
        card: the maker's name for it.
        driver: kernel driver.
        bus: the socket that it is plugged into.
        modes: its modes, in the driver's order.
    """

    path: str
    card: str
    driver: str
    bus: str
    modes: tuple[Mode, ...]

    def is_same_as(self, other: V4l2Device) -> bool:
        """Tell whether this is the same camera in the same socket, whatever its number."""
        return (self.card, self.bus) == (other.card, other.bus)


def query(path: str) -> V4l2Device:
    """Query a device's name and modes.

    Raises:
        CameraError: no such device, permission denied, vanished, or no capture device.
    """
    with _opened(path) as file:
        driver, card, bus, _, capabilities, own = _CAPABILITY.unpack(
            _ask(file, _QUERYCAP, bytes(_CAPABILITY.size), path)
        )
        if capabilities & _DEVICE_CAPS:
            capabilities = own
        if not capabilities & (_CAPTURE | _CAPTURE_MPLANE):
            raise CameraError(f"{path} gives no pictures", remedy=_REMEDY_LIST)
        kind = _TYPE_CAPTURE if capabilities & _CAPTURE else _TYPE_CAPTURE_MPLANE
        return V4l2Device(path, _text(card), _text(driver), _text(bus), tuple(_modes(file, kind)))


def device_nodes(devices: Path = Path("/dev")) -> list[str]:
    """List the video nodes in the order of their numbers."""
    nodes = devices.glob("video[0-9]*")
    return [str(node) for node in sorted(nodes, key=lambda node: int(node.name[5:]))]


def find_again(path: str, known: V4l2Device | None) -> V4l2Device:
    """Find a device at its path, or, once it is known, at another one after replugging.

    Raises:
        CameraError: it is not there, or cannot be used.
    """
    try:
        info = query(path)
    except CameraError:
        if known is None or Path(path).exists():
            raise
    else:
        if known is None or known.is_same_as(info):
            return info
    for node in device_nodes(Path(path).parent):
        with contextlib.suppress(CameraError):
            info = query(node)
            if known is not None and known.is_same_as(info):
                return info
    raise _cannot_open(path, FileNotFoundError(errno.ENOENT, "No such device"))


def check_not_busy(path: str) -> None:
    """Check that no other process streams from the device.

    Raises:
        CameraError: one does; the message names the processes that can be seen.
    """
    with _opened(path) as file:
        for kind in (_TYPE_CAPTURE, _TYPE_CAPTURE_MPLANE):
            request = _REQUEST_BUFFERS.pack(0, kind, _MEMORY_MMAP, 0, 0)
            try:
                fcntl.ioctl(file, _REQBUFS, request)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise _busy(path) from error


def holders(path: str) -> dict[int, str]:
    """Return the names of the other processes that have the device open, by process id.

    Only root sees those of other users.
    """
    target = os.path.realpath(path)
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            descriptors = [str(one.readlink()) for one in (process / "fd").iterdir()]
            if target in descriptors:
                name = (process / "comm").read_text(encoding="utf-8").strip()
                found[int(process.name)] = name
        except OSError:  # it ended, or belongs to another user
            continue
    return found


def _busy(path: str) -> CameraError:
    names = ", ".join(f"{name} ({process})" for process, name in holders(path).items())
    by = f" by {names}" if names else ""
    return CameraError(
        f"the camera {path} is in use{by}",
        remedy="stop the program that uses it"
        if names
        else f"find the program with `sudo fuser -v {path}` and stop it",
    )


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _cannot_open(path, error) from error
    try:
        yield file
    finally:
        os.close(file)


def _cannot_open(path: str, error: OSError) -> CameraError:
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR):
        return CameraError(f"there is no camera at {path}", remedy=f"connect it, or {_REMEDY_LIST}")
    if error.errno in (errno.EACCES, errno.EPERM):
        group = _group_of(path)
        return CameraError(
            f"no permission to use the camera {path}",
            remedy=f"add the agent's user to the group with `sudo usermod -aG {group} USER` "
            "and start it again",
        )
    if error.errno == errno.EBUSY:
        return _busy(path)
    return CameraError(f"cannot open the camera {path}: {error.strerror}", remedy=_REMEDY_LIST)


def _group_of(path: str) -> str:
    try:
        return grp.getgrgid(Path(path).stat().st_gid).gr_name
    except (OSError, KeyError):
        return "video"


def _ask(file: int, code: int, request: bytes, path: str) -> bytes:
    try:
        return fcntl.ioctl(file, code, request)
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise _cannot_open(path, error) from error
        raise CameraError(f"{path} is no camera: {error.strerror}", remedy=_REMEDY_LIST) from error


def _enumerate(file: int, code: int, layout: struct.Struct, *given: int) -> Iterator[bytes]:
    """Ask for entry 0, 1, 2, ... until the driver has no more."""
    for index in range(256):  # bounded, in case of a broken driver
        request = struct.pack(f"={1 + len(given)}I", index, *given)
        try:
            yield fcntl.ioctl(file, code, request.ljust(layout.size, b"\0"))
        except OSError:
            return


def _modes(file: int, kind: int) -> Iterator[Mode]:
    for answer in _enumerate(file, _ENUM_FMT, _FORMAT, kind):
        pixel_format = _FORMAT.unpack(answer)[4]
        fourcc = struct.pack("=I", pixel_format & 0x7FFF_FFFF).decode("ascii", "replace").strip()
        for size in _enumerate(file, _ENUM_FRAMESIZES, _FRAME_SIZE, pixel_format):
            _, _, shape, *numbers = _FRAME_SIZE.unpack(size)
            if shape == _DISCRETE:
                least_w, least_h = most_w, most_h = numbers[:2]
            else:
                least_w, most_w, _, least_h, most_h, _ = numbers
            fps = _highest_fps(file, pixel_format, most_w, most_h)
            yield Mode(fourcc, most_w, most_h, fps, least_w, least_h)


def _highest_fps(file: int, pixel_format: int, width: int, height: int) -> float:
    best = 0.0
    for answer in _enumerate(
        file, _ENUM_FRAMEINTERVALS, _FRAME_INTERVAL, pixel_format, width, height
    ):
        # Stepwise intervals begin with the shortest, in the place of a discrete one.
        numerator, denominator = _FRAME_INTERVAL.unpack(answer)[5:7]
        best = max(best, denominator / numerator if numerator else 0.0)
    return round(best, 2)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
