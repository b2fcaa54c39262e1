"""Events on their way to the broker: bounded, in order, and counted. Not thread-safe by itself."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fer_agent.vision.records import EmotionEvent, EventKind

if TYPE_CHECKING:
    from fer_agent.mqtt.messages import Origin
    from fer_agent.mqtt.payloads import EventMessage


@dataclass(slots=True, eq=False)
class Entry:
    """One accepted event.

    Attributes:
        event: what the smoother said.
        origin: the camera it is about.
        sequence: its number among the origin's events, from 1.
        recorded_ns: monotonic time at which it was accepted.
        message: what goes over the wire, once it was made; a second sending keeps its id.
    """

    event: EmotionEvent
    origin: Origin
    sequence: int
    recorded_ns: int
    message: EventMessage | None = None


class Outbox:
    """A queue that gives up its oldest `updated` events first, and then its oldest others.

    An entry is waiting until `take`, then in flight until `acknowledge` or `refuse`. Entries in
    flight count towards the limit and are never given up.
    """

    def __init__(self, limit: int) -> None:
        """Make an empty outbox.

        Args:
            limit: most entries kept; more than can be in flight at once.
        """
        self.published = 0
        self.acknowledged = 0
        self.dropped = 0
        self._limit = limit
        self._waiting: OrderedDict[int, Entry] = OrderedDict()
        self._updates: OrderedDict[int, None] = OrderedDict()
        self._in_flight: OrderedDict[int, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def add(self, entry: Entry) -> bool:
        """Queue an entry; returns whether the limit cost one, be it this or an older one."""
        self.published += 1
        number = self.published
        self._waiting[number] = entry
        if entry.event.kind is EventKind.UPDATED:
            self._updates[number] = None
        if len(self) <= self._limit:
            return False
        victim = next(iter(self._updates or self._waiting))
        self._waiting.pop(victim)
        self._updates.pop(victim, None)
        self.dropped += 1
        return True

    def take(self) -> tuple[int, Entry] | None:
        """Put the oldest waiting entry in flight; returns its number, or None when none waits."""
        if not self._waiting:
            return None
        number, entry = self._waiting.popitem(last=False)
        self._updates.pop(number, None)
        self._in_flight[number] = entry
        return number, entry

    def acknowledge(self, number: int) -> None:
        """Let an entry go that the broker confirmed."""
        del self._in_flight[number]
        self.acknowledged += 1

    def refuse(self, number: int) -> None:
        """Let an entry go that the broker does not take."""
        del self._in_flight[number]
        self.dropped += 1

    def put_back(self) -> None:
        """Let everything in flight wait again, before all others and in its old order."""
        while self._in_flight:
            number, entry = self._in_flight.popitem()
            self._waiting[number] = entry
            self._waiting.move_to_end(number, last=False)
            if entry.event.kind is EventKind.UPDATED:
                self._updates[number] = None
                self._updates.move_to_end(number, last=False)
