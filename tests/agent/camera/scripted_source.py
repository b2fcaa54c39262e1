"""A source that does what a test tells it to, for faults that hardware gives only rarely."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fer_agent.errors import CameraError
from fer_agent.vision.records import CameraStatus, Frame, Gap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Step: TypeAlias = "Frame | Gap | CameraError | Exception | Callable[[], None] | None"


class ScriptedSource:
    """Plays steps, shared by all copies: yields frames and gaps, raises errors, calls functions.

    An error as the first step of an opening leaves `open`; any other leaves `read`. After the
    last step every `read` times out.
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps = deque(steps)
        self.log: list[str] = []
        self.is_open = False

    def open(self) -> None:
        self.log.append("open")
        if self.steps and isinstance(self.steps[0], OpenError):
            raise self.steps.popleft()
        self.is_open = True

    def read(self) -> Frame | Gap | None:
        assert self.is_open
        if not self.steps:
            time.sleep(0.005)
            raise TimeoutError
        step = self.steps.popleft()
        if isinstance(step, Exception):
            raise step
        if callable(step):
            step()
            raise TimeoutError
        return step

    def close(self) -> None:
        if self.is_open:
            self.log.append("close")
        self.is_open = False


class OpenError(CameraError):
    """A camera error that `open` raises."""


def open_fails(text: str) -> OpenError:
    return OpenError(text, remedy="wait")


def read_fails(text: str) -> CameraError:
    return CameraError(text, remedy="wait")


def picture(shade: int = 0, *, captured_ns: int | None = None) -> Frame:
    now_ns = time.monotonic_ns() if captured_ns is None else captured_ns
    return Frame(np.full((8, 8), shade % 256, np.uint8), now_ns, 0)


class Statuses:
    """Collects statuses, and lets a test wait for one."""

    def __init__(self) -> None:
        self.seen: list[CameraStatus] = []
        self._changed = threading.Condition()

    def __call__(self, status: CameraStatus) -> None:
        with self._changed:
            self.seen.append(status)
            self._changed.notify_all()

    def wait_for(self, word: str, timeout_s: float) -> bool:
        """Wait until a status says the word; False when none did in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: any(word in said for said in self.words()), timeout_s
            )

    def words(self) -> list[str]:
        return [f"{one.state.value} {one.reason}".strip() for one in self.seen]
