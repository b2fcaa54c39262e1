"""The source of network cameras over RTSP and HTTP, in MJPEG and the other formats of FFmpeg."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit, urlunsplit

import cv2

from fer_agent.camera.backends.opencv import next_picture, open_capture
from fer_agent.camera.backends.replay import make_frame
from fer_agent.camera.backends.stream_fault import diagnose
from fer_agent.config.model import read_secret
from fer_agent.errors import CameraError, ConfigError
from fer_agent.vision.records import Frame

OPEN_TIMEOUT_MS = 8000
"""Time for connecting and for finding out the stream's format: an IP camera sends a key frame
every few seconds only."""

READ_TIMEOUT_MS = 2000
"""A stream without data for longer is opened again, as FFmpeg cannot go on reading it."""

PLACEHOLDER = "{password}"
"""Placeholder in an address for a password in its path or query."""


class StreamSource:
    """A network camera; a `FrameSource`.

    Args:
        url: rtsp://, http:// or https:// address without credentials; `{password}` in path or
            query stands for the password.
        username: user name, if the camera wants one before the host's name.
        password_file: file with the password, read at each opening.
        transport: transport of RTSP's pictures.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str = "",
        password_file: Path | None = None,
        transport: Literal["tcp", "udp"] = "tcp",
    ) -> None:
        self._url = url
        self._username = username
        self._password_file = password_file
        self._transport = transport
        self._capture = cv2.VideoCapture()

    def open(self) -> None:
        """Connect.

        Raises:
            CameraError: the host, the port, the path, the password or the format is wrong; the
                message says which, without the password.
        """
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
        limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS]
        self._capture = open_capture(self._address(), cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            has_credentials = bool(self._username) or PLACEHOLDER in self._url
            raise diagnose(self._url, with_credentials=has_credentials)

    def read(self) -> Frame:
        """Wait for the next picture.

        All have the size of the first one since `open`: OpenCV scales later ones to it, and none
        of its properties shows a change.
        """
        started_s = time.monotonic()
        picture = next_picture(self._capture)
        # After a timeout OpenCV still returns the old pictures in its decoder, and none follows.
        if picture is None or time.monotonic() - started_s > 0.95e-3 * READ_TIMEOUT_MS:
            raise CameraError(
                f"the stream {self._url} stopped",
                remedy="check the camera and the network; it is being opened again",
            )
        return make_frame(picture, time.monotonic_ns(), 0)

    def close(self) -> None:
        """Disconnect."""
        self._capture.release()

    def _address(self) -> str:
        """Return the address with credentials and transport, for FFmpeg only."""
        password = quote(self._password(), safe="")
        parts = urlsplit(self._url)
        netloc, query = parts.netloc, parts.query.replace(PLACEHOLDER, password)
        if self._username:
            separator = ":" if password else ""
            netloc = f"{quote(self._username, safe='')}{separator}{password}@{netloc}"
        if parts.scheme == "rtsp" and self._transport == "udp":
            query = f"{query}&udp" if query else "udp"
        path = parts.path.replace(PLACEHOLDER, password)
        return urlunsplit((parts.scheme, netloc, path, query, parts.fragment))

    def _password(self) -> str:
        if self._password_file is None:
            return ""
        try:
            return read_secret(self._password_file)
        except ConfigError as error:
            raise CameraError(str(error), remedy=error.remedy) from error
