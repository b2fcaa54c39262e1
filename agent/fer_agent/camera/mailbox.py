"""The mailbox between a camera's thread and the one that takes its frames."""

from __future__ import annotations

import threading
from collections import deque
from typing import TypeAlias

from fer_agent.vision.records import CameraStatus, Frame, Gap

Item: TypeAlias = Frame | Gap | CameraStatus


class Closed(Exception):  # noqa: N818  an end, not an error
    """The end of the mailbox: nothing is left, and nothing will follow."""


class Mailbox:
    """The newest item of each kind, in the order they came; at most three items.

    A frame replaces an older frame, so a slow taker gets the newest picture and memory stays
    bounded; likewise gaps and statuses.

    Args:
        lossless: nothing is replaced; `put` waits until the item before was taken.
    """

    def __init__(self, *, lossless: bool) -> None:
        self._lossless = lossless
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._error: BaseException | None = None
        self.dropped = 0

    def put(self, item: Item) -> None:
        """Hand one item over; after `finish` or `close` it is discarded."""
        with self._changed:
            if self._lossless:
                self._changed.wait_for(lambda: self._finished or not self._items)
            if self._finished:
                return
            for old in self._items:
                if type(old) is type(item):
                    self.dropped += isinstance(old, Frame)
                    self._items.remove(old)
                    break
            self._items.append(item)
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """End the items; `take` raises `error`, if any, after the last one."""
        with self._changed:
            if not self._finished:
                self._finished, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Discard the items left and end all waiting calls."""
        with self._changed:
            self._items.clear()
            self._finished, self._error = True, None
            self._changed.notify_all()

    def take(self, timeout_s: float) -> Item | None:
        """Wait for the oldest item; return None when nothing came in time.

        Raises:
            Closed: nothing is left and nothing will follow.
            BaseException: the error given to `finish`, once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._finished or self._items, timeout_s)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._finished:
                raise Closed
            return None
