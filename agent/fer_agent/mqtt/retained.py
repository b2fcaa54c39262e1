"""What the broker keeps for later subscribers, and when each message is due. Not thread-safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_agent.mqtt.messages import Topic
    from fer_agent.system.clock import ClockReading


@dataclass(slots=True, eq=False)
class Slot:
    """What one retained topic is to say.

    Attributes:
        topic: where it goes.
        write: makes the payload as of now, without the lock of whoever keeps the slot.
        clears: whether the payload is empty, so that the topic is gone once that is confirmed.
        only_changes: whether a payload equal to the last one is left out, but for repetitions.
        repeats: whether it is sent again at intervals.
        due: whether it is to be sent now.
        last: the payload sent last on this connection; None to send whatever it is.
        sent_ns: monotonic time of the last sending that counts for the repetition.
    """

    topic: Topic
    write: Callable[[ClockReading], bytes]
    clears: bool = False
    only_changes: bool = False
    repeats: bool = False
    due: bool = True
    last: bytes | None = None
    sent_ns: int = 0


class Board:
    """All retained topics, in the order in which they are sent after connecting."""

    def __init__(self, repeat_ns: int) -> None:
        """Make an empty board.

        Args:
            repeat_ns: nanoseconds between two sendings of a slot that repeats.
        """
        self._repeat_ns = repeat_ns
        self._slots: dict[Topic, Slot] = {}

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._slots

    def put(self, slot: Slot) -> None:
        """Add a topic, or replace what it says in its old place."""
        self._slots[slot.topic] = slot

    def all_due(self) -> None:
        """Make every topic due, as after connecting to a broker that may know nothing."""
        for slot in self._slots.values():
            slot.due, slot.last = True, None

    def take(self, now_ns: int) -> Slot | None:
        """Return the next topic that is due and count it as sent; None when there is none."""
        for slot in self._slots.values():
            late = slot.repeats and now_ns - slot.sent_ns >= self._repeat_ns
            if late:
                slot.last = None
            if slot.due or late:
                slot.due = False
                if slot.last is None or not slot.only_changes:
                    slot.sent_ns = now_ns
                return slot
        return None

    def confirm(self, slot: Slot) -> None:
        """Forget a topic whose clearing was confirmed, unless it says something new by now."""
        if slot.clears and self._slots.get(slot.topic) is slot:
            del self._slots[slot.topic]

    def next_ns(self) -> int | None:
        """Return the monotonic time of the next repetition; None when nothing repeats."""
        sent = [slot.sent_ns for slot in self._slots.values() if slot.repeats]
        return min(sent) + self._repeat_ns if sent else None
