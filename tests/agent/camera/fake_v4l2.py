"""A kernel driver in which faults can be injected, and OpenCV's reader of it."""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, Any

import cv2

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Offer = tuple[str, int, int, float]
WEBCAM: tuple[Offer, ...] = (
    ("MJPG", 640, 480, 30.0),
    ("MJPG", 1280, 720, 30.0),
    ("YUYV", 640, 480, 30.0),
    ("YUYV", 1280, 720, 10.0),
)


class FakeDriver:
    """Answers the ioctls of videodev2.h as uvcvideo does, and stands behind `cv2.VideoCapture`."""

    def __init__(self, offers: tuple[Offer, ...]) -> None:
        self.offers = offers
        self.name = b"uvcvideo"
        self.bus = b"usb-1"
        self.is_busy = False
        self.is_gone = False
        self.is_metadata = False
        self.forced_size: tuple[int, int] | None = None
        self.images: list[NDArray[np.uint8] | None] = []
        self.settings: dict[int, float] = {}

    def ioctl(self, _file: int, code: int, request: bytes) -> bytes:
        if self.is_gone:
            raise OSError(errno.ENODEV, "No such device")
        number = code & 0xFF
        answer = {0: self._cap, 2: self._fmt, 8: self._reqbufs, 74: self._size, 75: self._rate}
        result = answer[number](request)
        assert len(result) == (code >> 16) & 0x3FFF == len(request)
        return result

    def _cap(self, _: bytes) -> bytes:
        own = 0x0080_0000 if self.is_metadata else 0x0420_0001
        return struct.pack("=16s32s32s3I12x", self.name, b"Test Cam", self.bus, 1, 0x84A0_0001, own)

    def _nth(self, index: int, names: list[Any]) -> Any:
        if index >= len(names):
            raise OSError(errno.EINVAL, "Invalid argument")
        return names[index]

    def _fmt(self, request: bytes) -> bytes:
        index, kind = struct.unpack("=2I", request[:8])
        if kind != 1:
            raise OSError(errno.EINVAL, "Invalid argument")
        name = self._nth(index, list(dict.fromkeys(offer[0] for offer in self.offers)))
        return struct.pack("=3I32s4s16x", index, kind, 0, b"", name.encode())

    def _size(self, request: bytes) -> bytes:
        index, fourcc = struct.unpack("=I4s", request[:8])
        sizes = [offer[1:3] for offer in self.offers if offer[0].encode() == fourcc]
        return struct.pack("=I4s3I24x", index, fourcc, 1, *self._nth(index, sizes))

    def _rate(self, request: bytes) -> bytes:
        index, fourcc, *size = struct.unpack("=I4s2I", request[:16])
        wanted = (fourcc, tuple(size))
        rates = [offer[3] for offer in self.offers if (offer[0].encode(), offer[1:3]) == wanted]
        rate = round(self._nth(index, rates))
        return struct.pack("=I4s3I2I24x", index, fourcc, *size, 1, 1, rate)

    def _reqbufs(self, request: bytes) -> bytes:
        if self.is_busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return request

    # What follows stands behind cv2.VideoCapture.

    def isOpened(self) -> bool:  # noqa: N802  OpenCV's name
        return not self.is_gone

    def set(self, prop: int, value: float) -> bool:
        self.settings[prop] = value
        return True

    def get(self, prop: int) -> float:
        size = self.forced_size or (
            int(self.settings[cv2.CAP_PROP_FRAME_WIDTH]),
            int(self.settings[cv2.CAP_PROP_FRAME_HEIGHT]),
        )
        if prop == cv2.CAP_PROP_FRAME_WIDTH:
            return size[0]
        if prop == cv2.CAP_PROP_FRAME_HEIGHT:
            return size[1]
        return self.settings[prop]

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        image = self.images.pop(0) if self.images else None
        return image is not None, image

    def release(self) -> None:
        self.settings.clear()
