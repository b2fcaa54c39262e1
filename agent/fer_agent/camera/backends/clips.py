"""The pictures of videos, GIFs, single images and folders, with their times."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from fer_agent.camera.backends.opencv import next_picture, open_capture, silence_logging
from fer_agent.errors import CameraError
from fer_agent.vision.records import Bgr

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".jpe", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
)
"""Suffixes of the images in a folder; a single file is recognised by its content instead."""

_LONGEST_STEP_S = 10.0
"""Longest time between two pictures; beyond it a video's timestamps count as damaged."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipPicture:
    """One picture of a clip.

    Attributes:
        bgr: uint8 (H, W, 3).
        at_s: seconds from the clip's first picture.
        lasts_s: seconds until the next one is expected, also at the seam of a loop.
    """

    bgr: Bgr
    at_s: float
    lasts_s: float


Clip: TypeAlias = "Generator[ClipPicture, None, None]"


def play(path: Path, fps: float) -> Clip:
    """Yield the pictures of a media file or a folder of images, in order.

    Args:
        path: video, GIF, image or folder.
        fps: pace of a folder, and of a video without a frame rate.

    Raises:
        CameraError: missing, unreadable, or without a single picture that decodes; raised before
            the first picture.
    """
    if path.is_dir():
        return _play_folder(path, fps)
    head = _read_head(path)
    if _is_image(path, head):
        return _play_image(path, fps)
    return _play_video(path, fps, is_gif=head.startswith(b"GIF8"))


def read_image(path: Path) -> Bgr:
    """Read one image as 8-bit colour, turned by its EXIF orientation.

    Returns:
        uint8 (H, W, 3); transparency is dropped, 16 bits are scaled to 8, gray is repeated.

    Raises:
        CameraError: unreadable, damaged, truncated, or of a kind that OpenCV does not know.
    """
    silence_logging()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise _unreadable(path, "OpenCV cannot decode it") from error
    if image is None or not _is_whole(data):
        raise _unreadable(path, "the image is damaged, truncated or of an unknown kind")
    return np.asarray(image, np.uint8)


def _is_whole(data: bytes) -> bool:
    """Tell whether a JPEG has its end marker; older OpenCV fills a truncated one with gray.

    Source: ITU-T T.81, B.1.1: segments carry their length, and FF D9 cannot stand in a scan.
    """
    if not data.startswith(b"\xff\xd8"):
        return True
    at = 2
    while data[at : at + 2] > b"\xff" and data[at + 1] != 0xDA:  # to the start of scan
        is_fill = data[at + 1] == 0xFF
        at += 1 if is_fill else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


def _read_head(path: Path) -> bytes:
    if not path.exists():
        raise CameraError(
            f"there is no file or folder at {path}",
            remedy="check the path of the camera's `source`",
        )
    if not path.is_file():
        raise CameraError(
            f"{path} is neither a file nor a folder",
            remedy="name a video, GIF, image or folder of images as the camera's `source`",
        )
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if not head:
        raise _unreadable(path, "the file is empty")
    return head


def _is_image(path: Path, head: bytes) -> bool:
    # Newer OpenCV reads a GIF as an image of its first picture only, and a raw stream of JPEGs
    # begins like a single one.
    if head.startswith(b"GIF8") or path.suffix.lower() in (".mjpg", ".mjpeg"):
        return False
    return path.suffix.lower() in IMAGE_SUFFIXES or bool(cv2.haveImageReader(str(path)))


def _play_image(path: Path, fps: float) -> Clip:
    yield ClipPicture(read_image(path), 0.0, 1 / fps)


def _play_folder(path: Path, fps: float) -> Clip:
    try:
        entries = [entry for entry in os.scandir(path) if entry.is_file()]
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    images = [path / entry.name for entry in entries]
    images = sorted((one for one in images if one.suffix.lower() in IMAGE_SUFFIXES), key=_natural)
    if not images:
        raise CameraError(
            f"the folder {path} holds no image",
            remedy=f"put images there; these are taken: {' '.join(sorted(IMAGE_SUFFIXES))}",
        )
    return _decode_folder(images, fps)


def _decode_folder(images: list[Path], fps: float) -> Clip:
    count = 0
    problem: CameraError | None = None
    for image in images:
        try:
            bgr = read_image(image)
        except CameraError as error:
            logger.warning("%s; it is left out", error)
            problem = error
            continue
        yield ClipPicture(bgr, count / fps, 1 / fps)
        count += 1
    if count == 0 and problem is not None:
        raise problem


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts frame10 after frame9."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _play_video(path: Path, fps: float, *, is_gif: bool) -> Clip:
    capture = open_capture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise _unreadable(path, "it is no video, or one that is truncated or damaged")
        own_fps = capture.get(cv2.CAP_PROP_FPS)
        if 0 < own_fps <= 1000:
            fps = own_fps
        count, at_s, previous_ms = 0, 0.0, 0.0
        while (bgr := next_picture(capture)) is not None:
            now_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
            if count:
                step_s = (now_ms - previous_ms) / 1e3
                at_s += step_s if 0 < step_s <= _LONGEST_STEP_S else 1 / fps
            previous_ms = now_ms
            count += 1
            yield ClipPicture(bgr, at_s, 1 / fps)
        if count == 0:
            raise _unreadable(path, "the video has no picture that decodes")
        _warn_if_short(path, count, capture.get(cv2.CAP_PROP_FRAME_COUNT), is_gif=is_gif)
    finally:
        capture.release()


def _warn_if_short(path: Path, count: int, promised: float, *, is_gif: bool) -> None:
    """Warn about a video with fewer pictures than its header says, or a GIF without its semicolon.

    Some containers only estimate the number, so a few pictures fewer are no fault.
    """
    if is_gif:
        with path.open("rb") as file:
            file.seek(-min(path.stat().st_size, 64), os.SEEK_END)
            is_short = not file.read().rstrip(b"\0").endswith(b";")
    else:
        is_short = count < 0.95 * promised - 2
    if is_short:
        logger.warning(
            "%s is truncated or damaged: %d pictures decoded, %s expected",
            path,
            count,
            "more" if is_gif else f"{promised:.0f}",
        )


def _unreadable(path: Path, why: str) -> CameraError:
    return CameraError(
        f"cannot read {path}: {why}",
        remedy="try the file in a media player, copy it again, or convert it with "
        "`ffmpeg -i INPUT output.mp4`",
    )
