"""The bounded, ordered queue of events on their way to the broker. Not thread-safe by itself."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from fer_agent.mqtt.messages import Origin
from fer_agent.mqtt.payloads import EventMessage
from fer_agent.vision.records import EmotionEvent, EventKind


@dataclass(slots=True, eq=False)
class QueuedEvent:
    """One accepted event.

    Attributes:
        event: the smoother's event.
        origin: its camera.
        sequence: its number among the origin's events, from 1.
        recorded_ns: monotonic time at which it was accepted.
        message: the CloudEvent, once it was made; a second sending keeps its id.
    """

    event: EmotionEvent
    origin: Origin
    sequence: int
    recorded_ns: int
    message: EventMessage | None = None


class Outbox:
    """A queue that drops its oldest `updated` events first, and then its oldest others.

    An event waits until `take`, then is in flight until `acknowledge` or `reject`. Events in flight
    count towards the limit and are never dropped for it.
    """

    def __init__(self, limit: int) -> None:
        """Make an empty outbox.

        Args:
            limit: most events kept; more than can be in flight at once.
        """
        self.published = 0
        self.acknowledged = 0
        self.dropped = 0
        self._limit = limit
        # Ordered sets.
        self._waiting: OrderedDict[QueuedEvent, None] = OrderedDict()
        self._updates: OrderedDict[QueuedEvent, None] = OrderedDict()
        self._in_flight: OrderedDict[QueuedEvent, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    @property
    def in_flight(self) -> int:
        """The number of events in flight."""
        return len(self._in_flight)

    def add(self, queued: QueuedEvent) -> bool:
        """Queue an event; return whether the limit cost one, be it this or an older one."""
        self.published += 1
        self._waiting[queued] = None
        if queued.event.kind is EventKind.UPDATED:
            self._updates[queued] = None
        if len(self) <= self._limit:
            return False
        victim = next(iter(self._updates or self._waiting))
        del self._waiting[victim]
        self._updates.pop(victim, None)
        self.dropped += 1
        return True

    def take(self) -> QueuedEvent | None:
        """Put the oldest waiting event in flight and return it; None when none waits."""
        if not self._waiting:
            return None
        queued, _ = self._waiting.popitem(last=False)
        self._updates.pop(queued, None)
        self._in_flight[queued] = None
        return queued

    def acknowledge(self, queued: QueuedEvent) -> None:
        """Remove an event that the broker confirmed."""
        del self._in_flight[queued]
        self.acknowledged += 1

    def reject(self, queued: QueuedEvent) -> None:
        """Remove an event that the broker does not take, and count it as dropped."""
        del self._in_flight[queued]
        self.dropped += 1

    def put_back(self) -> None:
        """Let everything in flight wait again, before all others and in its old order."""
        while self._in_flight:
            queued, _ = self._in_flight.popitem()
            self._waiting[queued] = None
            self._waiting.move_to_end(queued, last=False)
            if queued.event.kind is EventKind.UPDATED:
                self._updates[queued] = None
                self._updates.move_to_end(queued, last=False)
