"""The camera with a capture thread, which turns faults into statuses and gaps."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable, Iterator

from fer_agent.camera.capture import CaptureThread, Counter
from fer_agent.camera.contract import NO_FRAMES, NO_FRAMES_REMEDY, FrameSource, offline
from fer_agent.camera.frozen import FrozenPicture
from fer_agent.camera.mailbox import Closed, Mailbox
from fer_agent.errors import CameraError
from fer_agent.vision.records import CameraState, CameraStats, CameraStatus, Frame, Gap

logger = logging.getLogger(__name__)

JOIN_S = 1.5
"""Longest time that `close` waits for the camera's thread."""

MAX_STUCK = 3
"""Most threads that may hang in calls that never return; after that none is replaced."""

_POLL_S = 0.25


class ThreadedCamera:
    """A camera that reads a source in the thread `camera-<name>`; satisfies `ports.Camera`.

    Args:
        source: the device or file, not yet opened.
        name: the camera's name, for the thread and the log.
        gap_s: after this long without a frame, in seconds, a live camera is offline and a `Gap`
            is yielded, once per loss.
        lossless: the source waits for the taker instead of dropping frames; for files read as
            fast as they are taken.
        live: faults become statuses, and the source is opened again for ever with growing waits.
            Otherwise `frames()` raises the first `CameraError`.
        on_status: called when the status changes, in the thread that iterates `frames()`.
        deadline_s: a live source is opened again when it gave no picture for this long, and its
            thread is replaced when a call did not return for this long, in seconds.
        frozen_s: a live picture that is the same for this long is a fault; 0 turns this off.
    """

    def __init__(
        self,
        source: FrameSource,
        *,
        name: str,
        gap_s: float,
        live: bool,
        on_status: Callable[[CameraStatus], None],
        lossless: bool = False,
        deadline_s: float = 5.0,
        frozen_s: float = 0.0,
    ) -> None:
        self.name = name
        self._pristine = copy.copy(source)
        self._gap_s = gap_s
        self._live = live
        self._on_status = on_status
        self._deadline_s = deadline_s
        self._frozen_s = frozen_s
        self._mailbox = Mailbox(lossless=lossless)
        self._counter = Counter()
        self._worker = self._make_worker(source)
        self._stuck: list[CaptureThread] = []
        self._status: CameraStatus | None = None
        self._lock = threading.Lock()
        self._closed = False
        self.turns = 0
        """Progress counter: rises while `frames()` runs or waits for pictures, but not in a call
        that does not return, nor while a file's reading hangs."""

    def frames(self) -> Iterator[Frame | Gap]:
        """Yield the newest frame again and again, and a `Gap` where frames stopped.

        Ends with the source or `close`; of a source that is not live, with its `CameraError`.
        """
        with self._lock:
            if not self._closed:
                self._worker.start()
        last_ns: int | None = None
        last_s, in_gap = time.monotonic(), False
        while True:
            try:
                item = self._mailbox.take(min(_POLL_S, self._gap_s))
            except Closed:
                return
            except CameraError as error:
                self._report(offline(error))
                raise
            now_s = time.monotonic()
            self.turns += self._live or not self._worker.is_stuck()
            if isinstance(item, Frame):
                last_ns, in_gap = item.captured_ns, False
                self._report(CameraStatus(CameraState.ONLINE))
                yield item
                last_s = time.monotonic()  # a slow taker is no fault of the camera's
            elif isinstance(item, Gap):
                yield item
            elif isinstance(item, CameraStatus):
                self._report(item)
            if self._live and not isinstance(item, Frame):
                if not in_gap and now_s - last_s >= self._gap_s:
                    in_gap = True
                    yield Gap(last_ns or time.monotonic_ns(), self._report_loss())
                self._replace_if_stuck()

    def close(self) -> None:
        """Stop; a waiting `frames()` returns. The thread is joined, unless it hangs."""
        with self._lock:
            self._closed = True
            worker = self._worker
        worker.stop()
        self._mailbox.close()
        if not worker.join(JOIN_S):
            logger.warning("camera %s: left a call behind that does not return", self.name)

    def stats(self) -> CameraStats:
        """Return the counters."""
        return CameraStats(
            captured=self._counter.captured,
            dropped=self._mailbox.dropped,
            reopened=max(0, self._counter.opened - 1),
        )

    def _make_worker(self, source: FrameSource) -> CaptureThread:
        return CaptureThread(
            source,
            mailbox=self._mailbox,
            counter=self._counter,
            name=self.name,
            live=self._live,
            deadline_s=self._deadline_s,
            frozen=FrozenPicture(self._frozen_s),
        )

    def _report(self, status: CameraStatus) -> None:
        if status == self._status:
            return
        self._status = status
        if status.state is CameraState.ONLINE:
            logger.info("camera %s is online", self.name)
        else:
            what = "; ".join(filter(None, (status.reason, status.remedy)))
            logger.warning("camera %s is offline: %s", self.name, what)
        self._on_status(status)

    def _report_loss(self) -> str:
        """Return the reason for the loss; a fault that was reported before explains more."""
        if self._status is None or self._status.state is CameraState.ONLINE:
            self._report(CameraStatus(CameraState.OFFLINE, NO_FRAMES, NO_FRAMES_REMEDY))
        return self._status.reason if self._status else ""

    def _replace_if_stuck(self) -> None:
        """Start another thread in place of one whose call does not return."""
        worker = self._worker
        if not worker.is_stuck():
            return
        self._stuck = [one for one in self._stuck if one.is_alive()]
        reason, remedy = "a call to the camera's driver does not return", NO_FRAMES_REMEDY
        if len(self._stuck) >= MAX_STUCK:
            reason += ", nor do those that replaced it"
            remedy = "reconnect the camera or restart the device"
            self._report(CameraStatus(CameraState.OFFLINE, reason, remedy))
            return
        self._report(CameraStatus(CameraState.OFFLINE, reason, remedy))
        worker.stop()
        self._stuck.append(worker)
        with self._lock:
            if not self._closed:
                self._worker = self._make_worker(copy.copy(self._pristine))
                self._worker.start()
