"""What waits to be sent, between the threads that have something to say and the one that talks."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fer_agent.mqtt.outbox import Entry, Outbox
from fer_agent.mqtt.payloads import OutboxHealth
from fer_agent.mqtt.retained import Board, Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.mqtt.messages import Topic

logger = logging.getLogger(__name__)

_IDLE_S: Final = 60.0
"""Longest wait when nothing repeats."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Events and connections since the start: published = acknowledged + dropped + queued.

    Attributes:
        published: events accepted.
        acknowledged: events the broker confirmed.
        dropped: events lost to a full outbox, or refused by the broker.
        queued: events waiting or under way.
        reconnects: connections after the first.
    """

    published: int
    acknowledged: int
    dropped: int
    queued: int
    reconnects: int

    def outbox(self) -> OutboxHealth:
        """Return the part that the health message carries under `outbox`."""
        return OutboxHealth(
            published=self.published,
            acknowledged=self.acknowledged,
            dropped=self.dropped,
            queued=self.queued,
        )


@dataclass(frozen=True, slots=True)
class Ticket:
    """An event that was taken out, with the number it is confirmed by."""

    number: int
    entry: Entry


class Mailroom:
    """The outbox and the retained topics under one lock; every method returns at once."""

    def __init__(self, *, limit: int, repeat_s: float, wake: Callable[[], None]) -> None:
        """Make an empty one.

        Args:
            limit: most events kept.
            repeat_s: seconds between two sendings of a retained topic that repeats.
            wake: called after something was put in, to wake the thread that talks.
        """
        self._lock = threading.Lock()
        self._outbox = Outbox(limit)
        self._board = Board(int(repeat_s * 1e9))
        self._wake = wake
        self._connections = 0
        self._full = False
        # Entries in flight cannot be given up, so part of the outbox stays for what waits.
        self._most_in_flight = limit // 2
        self._in_flight = 0

    def add(self, entry: Entry, *slots: Slot) -> None:
        """Take an event in, and what it makes retained topics say; a full outbox gives one up."""
        with self._lock:
            for slot in slots:
                self._board.put(slot)
            lost = self._outbox.add(entry)
            first = lost and not self._full
            self._full = self._full or lost
        if first:
            logger.warning("the outbox is full: events are lost until the broker takes some")
        self._wake()

    def put(self, *slots: Slot) -> None:
        """Take in what retained topics are to say from now on."""
        with self._lock:
            for slot in slots:
                self._board.put(slot)
        self._wake()

    def __contains__(self, topic: Topic) -> bool:
        with self._lock:
            return topic in self._board

    def connected(self) -> None:
        """Begin again on a new link: all retained topics, then what the last link left open."""
        with self._lock:
            self._connections += 1
            self._in_flight = 0
            self._board.all_due()
            self._outbox.put_back()

    def take(self) -> Slot | Ticket | None:
        """Return what is to be sent next: retained topics before events; None for nothing."""
        with self._lock:
            slot = self._board.take(time.monotonic_ns())
            if slot is not None or self._in_flight >= self._most_in_flight:
                return slot
            taken = self._outbox.take()
            if taken is None:
                return None
            self._in_flight += 1
            return Ticket(*taken)

    def confirm(self, sent: Slot | Ticket) -> None:
        """Note that the broker has it."""
        with self._lock:
            if isinstance(sent, Slot):
                self._board.confirm(sent)
                return
            self._in_flight -= 1
            self._outbox.acknowledge(sent.number)
            if not self._outbox:
                self._full = False

    def refuse(self, sent: Slot | Ticket) -> None:
        """Note that it cannot be delivered; an event is lost and counted."""
        if isinstance(sent, Ticket):
            with self._lock:
                self._in_flight -= 1
                self._outbox.refuse(sent.number)

    def wait_s(self) -> float:
        """Return seconds until the next repetition, at most a minute."""
        with self._lock:
            next_ns = self._board.next_ns()
        return _IDLE_S if next_ns is None else max(0.0, (next_ns - time.monotonic_ns()) / 1e9)

    def counters(self) -> Counters:
        """Return what was counted so far."""
        with self._lock:
            return Counters(
                published=self._outbox.published,
                acknowledged=self._outbox.acknowledged,
                dropped=self._outbox.dropped,
                queued=len(self._outbox),
                reconnects=max(0, self._connections - 1),
            )
