"""The contract between cameras and their sources."""

from __future__ import annotations

from typing import Protocol

from fer_agent.errors import CameraError
from fer_agent.vision.records import CameraState, CameraStatus, Frame, Gap

NO_FRAMES = "no pictures come from the camera"
NO_FRAMES_REMEDY = "check the camera's cable and power; it is being opened again"


class FrameSource(Protocol):
    """A device or file, used by one thread at a time.

    Before `open` it holds settings only, and `open` creates all state: a source whose call never
    returns is abandoned, and a copy of the unopened one replaces it.
    """

    def open(self) -> None:
        """Get ready to read; called again after a fault.

        Raises:
            CameraError: it cannot be opened; nothing stays open.
        """
        ...

    def read(self) -> Frame | Gap | None:
        """Wait, at most about a second, for the next picture; None is the file's end.

        Its number does not matter: the camera numbers its frames across reopenings.

        Raises:
            TimeoutError: no picture yet; read again.
            CameraError: no further picture will come without reopening.
        """
        ...

    def close(self) -> None:
        """Release the device or file; harmless when nothing is open."""
        ...


def offline(error: CameraError) -> CameraStatus:
    """Return the status of a camera with a fault."""
    return CameraStatus(CameraState.OFFLINE, str(error), error.remedy)
