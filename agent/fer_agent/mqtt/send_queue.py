"""The messages that wait to be sent, between the publishing threads and the session's thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from fer_agent.mqtt.messages import Topic
from fer_agent.mqtt.outbox import Outbox, QueuedEvent
from fer_agent.mqtt.payloads import OutboxHealth
from fer_agent.mqtt.retained import RetainedTopic, RetainedTopics

logger = logging.getLogger(__name__)

_IDLE_S: Final = 60.0
"""Longest wait when nothing repeats."""


class SendQueue:
    """The outbox and the retained topics under one lock; every method returns at once."""

    def __init__(self, *, limit: int, repeat_s: float, wake: Callable[[], None]) -> None:
        """Make an empty queue.

        Args:
            limit: most events kept.
            repeat_s: seconds between two sendings of a retained topic that repeats.
            wake: wakes the session's thread; called after each addition.
        """
        self._lock = threading.Lock()
        self._outbox = Outbox(limit)
        self._retained = RetainedTopics(int(repeat_s * 1e9))
        self._wake = wake
        self._connections = 0
        self._full = False
        # Events in flight cannot be dropped, so part of the outbox stays for those that wait.
        self._most_in_flight = limit // 2

    def add(self, event: QueuedEvent, *topics: RetainedTopic) -> None:
        """Add an event, and the retained topics that it changes; a full outbox drops one."""
        with self._lock:
            self._retained.put(*topics)
            lost = self._outbox.add(event)
            first = lost and not self._full
            self._full = self._full or lost
        if first:
            logger.warning("the outbox is full: events are lost until the broker takes some")
        self._wake()

    def put(self, *topics: RetainedTopic) -> None:
        """Add retained topics, or replace their content."""
        with self._lock:
            self._retained.put(*topics)
        self._wake()

    def __contains__(self, topic: Topic) -> bool:
        with self._lock:
            return topic in self._retained

    def connected(self) -> None:
        """Begin again: all retained topics, then the events unconfirmed on the last connection."""
        with self._lock:
            self._connections += 1
            self._retained.all_due()
            self._outbox.put_back()

    def take(self) -> RetainedTopic | QueuedEvent | None:
        """Return the next thing to send: retained topics before events; None for nothing."""
        with self._lock:
            retained = self._retained.take(time.monotonic_ns())
            if retained is not None or self._outbox.in_flight >= self._most_in_flight:
                return retained
            return self._outbox.take()

    def confirm(self, sent: RetainedTopic | QueuedEvent) -> None:
        """Note that the broker has it."""
        with self._lock:
            if isinstance(sent, RetainedTopic):
                self._retained.confirm(sent)
                return
            self._outbox.acknowledge(sent)
            if not self._outbox:
                self._full = False

    def reject(self, sent: RetainedTopic | QueuedEvent) -> None:
        """Note that it cannot be delivered; an event is dropped and counted."""
        if isinstance(sent, QueuedEvent):
            with self._lock:
                self._outbox.reject(sent)

    def wait_s(self) -> float:
        """Return seconds until the next repetition, at most a minute."""
        with self._lock:
            next_ns = self._retained.next_ns()
        return _IDLE_S if next_ns is None else max(0.0, (next_ns - time.monotonic_ns()) / 1e9)

    def counters(self) -> OutboxHealth:
        """Return the counts of events so far: published = acknowledged + dropped + queued."""
        with self._lock:
            return OutboxHealth(
                published=self._outbox.published,
                acknowledged=self._outbox.acknowledged,
                dropped=self._outbox.dropped,
                queued=len(self._outbox),
            )

    @property
    def reconnects(self) -> int:
        """The number of connections after the first."""
        return max(0, self._connections - 1)
