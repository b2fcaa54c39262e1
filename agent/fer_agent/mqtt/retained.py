"""The messages that the broker retains, and when each is due. Not thread-safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fer_agent.mqtt.messages import Topic
from fer_agent.system.clock import ClockReading


@dataclass(slots=True, eq=False)
class RetainedTopic:
    """One retained topic and its newest content.

    Attributes:
        topic: the topic.
        write: makes the payload as of now; called without the send queue's lock.
        clears: whether the payload is empty, so that the topic is gone once that is confirmed.
        only_changes: whether a payload equal to the last one is left out, but for repetitions.
        repeats: whether it is sent again at intervals.
        due: whether it is to be sent now.
        last: the payload sent last on this connection; None to send the next in any case.
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


class RetainedTopics:
    """All retained topics, in the order in which they are sent after connecting."""

    def __init__(self, repeat_ns: int) -> None:
        """Make an empty collection.

        Args:
            repeat_ns: nanoseconds between two sendings of a topic that repeats.
        """
        self._repeat_ns = repeat_ns
        self._topics: dict[Topic, RetainedTopic] = {}

    def __contains__(self, topic: Topic) -> bool:
        return topic in self._topics

    def put(self, *topics: RetainedTopic) -> None:
        """Add topics, or replace their content in their old places."""
        for retained in topics:
            self._topics[retained.topic] = retained

    def all_due(self) -> None:
        """Make every topic due, as after connecting to a broker that may have none of them."""
        for retained in self._topics.values():
            retained.due, retained.last = True, None

    def take(self, now_ns: int) -> RetainedTopic | None:
        """Return the next topic that is due and count it as sent; None when there is none."""
        for retained in self._topics.values():
            late = retained.repeats and now_ns - retained.sent_ns >= self._repeat_ns
            if late:
                retained.last = None
            if retained.due or late:
                retained.due = False
                if retained.last is None or not retained.only_changes:
                    retained.sent_ns = now_ns
                return retained
        return None

    def confirm(self, retained: RetainedTopic) -> None:
        """Forget a topic whose clearing was confirmed, unless it has new content by now."""
        if retained.clears and self._topics.get(retained.topic) is retained:
            del self._topics[retained.topic]

    def next_ns(self) -> int | None:
        """Return the monotonic time of the next repetition; None when nothing repeats."""
        sent = [retained.sent_ns for retained in self._topics.values() if retained.repeats]
        return min(sent) + self._repeat_ns if sent else None
