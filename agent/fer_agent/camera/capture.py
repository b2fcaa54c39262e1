"""One capture thread and the source it owns, until the source ends or the camera is closed."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fer_agent.errors import CameraError
from fer_agent.system.backoff import Backoff
from fer_agent.vision.records import CameraState, CameraStatus, Frame, Gap

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.camera.frozen import FrozenPicture
    from fer_agent.camera.mailbox import Mailbox

logger = logging.getLogger(__name__)

GOOD_S = 60.0
"""Frames for this long prove a camera healthy: the next fault is answered quickly again."""

OPEN_S = 10.0
"""How long opening or closing may take before the thread counts as stuck: a network camera sends
a picture that stands alone every few seconds only, and a Pi camera's libcamera starts slowly."""

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
"""Before a camera is opened again; with the opening itself one that came back is seen within ten
seconds."""

SILENT = "no pictures come from the camera"
SILENT_REMEDY = "check the camera's cable and power; it is being opened again"


class FrameSource(Protocol):
    """A device or file, used by one thread at a time.

    Before `open` it holds settings only, and `open` makes everything new: a source whose call
    never returns is left behind, and a copy of the unopened one takes its place.
    """

    def open(self) -> None:
        """Get ready to read; called again after a fault.

        Raises:
            CameraError: it cannot be opened; nothing stays open.
        """
        ...

    def read(self) -> Frame | Gap | None:
        """Wait, at most about a second, for the next picture; None is the file's end.

        Its number is of no account: the camera numbers its frames across reopenings.

        Raises:
            TimeoutError: no picture yet; ask again.
            CameraError: no further picture will come without reopening.
        """
        ...

    def close(self) -> None:
        """Release the device or file; harmless when nothing is open."""
        ...


def offline(error: CameraError) -> CameraStatus:
    """Return what the world is told of a fault."""
    return CameraStatus(CameraState.OFFLINE, str(error), error.remedy)


class Counter:
    """Pictures got, successful openings and the newest picture, over all threads of one camera.

    Written by its current capture thread only.
    """

    def __init__(self) -> None:
        self.captured = 0
        self.opened = 0
        self.size: tuple[int, int] | None = None
        self.captured_ns = 0

    def take(self, frame: Frame) -> Gap | None:
        """Count a picture; the gap before it when boxes of the last one mean nothing in it."""
        before, before_ns = self.size, self.captured_ns
        self.captured += 1
        self.size, self.captured_ns = frame.size, frame.captured_ns
        if before in (None, frame.size):
            return None
        return Gap(before_ns, "the pictures changed their size")


class CaptureThread:
    """Opens, reads and closes a source in a thread of its own.

    Args:
        source: not yet opened; nobody else uses it.
        mailbox: where frames, gaps and statuses go.
        counter: shared by all threads of the camera, one after the other.
        name: the camera's name.
        live: whether a fault is told and the source opened again, instead of ending it all.
        deadline_s: a live source that gives nothing for this long is opened again.
        frozen: looks whether a live picture stands still.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        mailbox: Mailbox,
        counter: Counter,
        name: str,
        live: bool,
        deadline_s: float,
        frozen: FrozenPicture,
    ) -> None:
        self._source = source
        self._mailbox = mailbox
        self._counter = counter
        self._live = live
        self._deadline_s = deadline_s
        self._frozen = frozen
        self._backoff = Backoff(first_s=FIRST_WAIT_S, longest_s=LONGEST_WAIT_S)
        self._stopped = threading.Event()
        self._overdue_s = math.inf
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)
        self._started = False

    def start(self) -> None:
        """Start the thread, unless it was started before."""
        if not self._started:
            self._started = True
            self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; nothing it still gets is handed over."""
        self._stopped.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; False when it goes on."""
        if self._started and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self.is_alive()

    def is_alive(self) -> bool:
        """Tell whether the thread still runs."""
        return self._thread.is_alive()

    def is_stuck(self) -> bool:
        """Tell whether a call to the source should have returned by now."""
        return time.monotonic() > self._overdue_s

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    self._play()
                except CameraError as error:
                    if not self._live:
                        raise
                    self._report(error)
                    self._stopped.wait(self._backoff.next_s())
                else:
                    self._finish(None)
        except CameraError as error:
            self._finish(error)
        except Exception as error:  # the thread's boundary: whoever takes the frames gets it
            logger.exception("camera thread %s ended by a bug", self._thread.name)
            self._finish(error)

    def _play(self) -> None:
        """Open the source and hand over its pictures until it ends or the camera is closed."""
        try:
            self._call(self._source.open, OPEN_S)
            self._counter.opened += not self._stopped.is_set()
            opened_s = quiet_since_s = time.monotonic()
            while not self._stopped.is_set():
                try:
                    item = self._call(self._source.read, self._deadline_s)
                except TimeoutError:
                    self._complain_if_quiet(quiet_since_s)
                    continue
                if item is None:
                    return
                quiet_since_s = time.monotonic()
                if quiet_since_s - opened_s > GOOD_S:
                    self._backoff.reset()
                self._hand_over(item)
        finally:
            self._call(self._source.close, OPEN_S)

    def _call(self, method: Callable[[], Frame | Gap | None], limit_s: float) -> Frame | Gap | None:
        self._overdue_s = time.monotonic() + max(limit_s, self._deadline_s)
        try:
            return method()
        finally:
            self._overdue_s = math.inf

    def _complain_if_quiet(self, quiet_since_s: float) -> None:
        if self._live and time.monotonic() - quiet_since_s > self._deadline_s:
            raise CameraError(SILENT, remedy=SILENT_REMEDY)

    def _hand_over(self, item: Frame | Gap) -> None:
        if self._stopped.is_set():  # left behind or closed during the call
            return
        if isinstance(item, Frame):
            gap = self._counter.take(item)
            if gap is not None:
                self._mailbox.put(gap)
            if self._live and self._frozen.withholds(item):
                return
            item = replace(item, number=self._counter.captured)
        self._mailbox.put(item)

    def _report(self, error: CameraError) -> None:
        logger.debug("camera thread %s: %s", self._thread.name, error)
        if not self._stopped.is_set():
            self._mailbox.put(offline(error))

    def _finish(self, error: BaseException | None) -> None:
        if not self._stopped.is_set():
            self._mailbox.finish(error)
        self._stopped.set()
