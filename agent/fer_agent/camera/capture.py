"""The capture thread, which owns a source until that ends or the camera is closed."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from fer_agent.camera.contract import NO_FRAMES, NO_FRAMES_REMEDY, FrameSource, offline
from fer_agent.camera.frozen import FrozenPicture
from fer_agent.camera.mailbox import Mailbox
from fer_agent.errors import CameraError
from fer_agent.system.backoff import Backoff
from fer_agent.vision.records import Frame, Gap

logger = logging.getLogger(__name__)

GOOD_S = 60.0
"""Seconds of frames after which a camera is healthy, and the back-off starts again."""

OPEN_S = 10.0
"""Longest time for opening or closing before the thread counts as stuck: a network camera sends
a key frame every few seconds only, and a Pi camera's libcamera starts slowly."""

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 5.0
"""Waits before a camera is opened again; with the opening itself a camera that came back is seen
within ten seconds."""


class Counter:
    """Counters and the newest picture's size over all threads of one camera.

    Written by its current capture thread only.
    """

    def __init__(self) -> None:
        self.captured = 0
        self.opened = 0
        self.size: tuple[int, int] | None = None
        self.captured_ns = 0

    def take(self, frame: Frame) -> Gap | None:
        """Count a picture; return the gap before it if it has another size than the last one."""
        before, before_ns = self.size, self.captured_ns
        self.captured += 1
        self.size, self.captured_ns = frame.size, frame.captured_ns
        if before in (None, frame.size):
            return None
        return Gap(before_ns, "the pictures changed their size")


class CaptureThread:
    """A thread that opens, reads and closes a source.

    Args:
        source: not yet opened; used by this thread only.
        mailbox: receives frames, gaps and statuses.
        counter: shared by all threads of the camera, one after the other.
        name: the camera's name.
        live: whether the source is opened again after a fault, instead of ending the camera.
        deadline_s: a live source that gives nothing for this long is opened again.
        frozen: checks whether a live picture is frozen.
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
        """Ask the thread to end; it hands nothing over from now on."""
        self._stopped.set()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread; return False if it still runs."""
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
        except Exception as error:  # the thread's boundary: `Mailbox.take` raises it
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
                    if self._live and time.monotonic() - quiet_since_s > self._deadline_s:
                        raise CameraError(NO_FRAMES, remedy=NO_FRAMES_REMEDY) from None
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

    def _hand_over(self, item: Frame | Gap) -> None:
        if self._stopped.is_set():  # replaced or closed during the call
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
