"""The events that a full outbox drops, and the order in which the rest is sent."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.mqtt.messages import Identity, MessageKind, Origin, Topic
from fer_agent.mqtt.outbox import Outbox, QueuedEvent
from fer_agent.mqtt.retained import RetainedTopic
from fer_agent.mqtt.send_queue import SendQueue
from fer_agent.vision.records import EmotionEvent, EventKind, ModelIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

ORIGIN = Origin(Identity("fer-1", ""), "front")
KINDS = {"s": EventKind.STARTED, "u": EventKind.UPDATED, "e": EventKind.ENDED}


def filled(outbox: Outbox, kinds: str) -> Outbox:
    """Add events whose sequence is their place in the text."""
    for queued in events(kinds):
        outbox.add(queued)
    return outbox


def events(kinds: str) -> Iterator[QueuedEvent]:
    for sequence, letter in enumerate(kinds, start=1):
        event = EmotionEvent(
            kind=KINDS[letter],
            track_id=1,
            captured_ns=0,
            emotion="happy",
            confidence=1.0,
            labels=("happy",),
            probs=np.ones(1, np.float32),
            xyxy=np.zeros(4, np.float32),
            frame_size=(1, 1),
            started_ns=0,
            model=ModelIdentity("net", "0" * 64),
        )
        yield QueuedEvent(event, ORIGIN, sequence, 0)


def taken(outbox: Outbox) -> list[int]:
    sequences = []
    while (queued := outbox.take()) is not None:
        sequences.append(queued.sequence)
    return sequences


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        ("suue", [1, 2, 3, 4]),
        ("suueu", [1, 3, 4, 5]),
        ("suuesu", [1, 4, 5, 6]),
        ("suuese", [1, 4, 5, 6]),
        ("sesese", [3, 4, 5, 6]),
        ("seseu", [1, 2, 3, 4]),
    ],
    ids=["fits", "oldest-update", "two-updates", "updates-first", "only-then-oldest", "itself"],
)
def test_a_full_outbox_drops_updates_before_others(kinds: str, left: list[int]) -> None:
    outbox = filled(Outbox(4), kinds)

    assert outbox.published == len(kinds)
    assert outbox.dropped == len(kinds) - 4
    assert taken(outbox) == left


def test_events_in_flight_count_but_are_never_dropped() -> None:
    outbox = filled(Outbox(4), "uu")
    outbox.take()
    outbox.take()

    filled(outbox, "uuu")

    assert (len(outbox), outbox.in_flight, outbox.dropped) == (4, 2, 1)
    assert taken(outbox) == [2, 3]


def test_events_put_back_go_first_in_their_old_order() -> None:
    outbox = filled(Outbox(9), "suuue")
    first, *_ = (outbox.take() for _ in range(3))
    assert first is not None
    outbox.acknowledge(first)

    outbox.put_back()

    assert taken(outbox) == [2, 3, 4, 5]


def test_updates_put_back_are_dropped_first_again() -> None:
    outbox = filled(Outbox(4), "uuss")
    outbox.take()
    outbox.put_back()

    filled(outbox, "s")

    assert taken(outbox) == [2, 3, 4, 1]


def test_every_event_is_acknowledged_dropped_or_still_there() -> None:
    outbox = filled(Outbox(4), "suuuue")
    first, second = outbox.take(), outbox.take()
    assert first is not None
    assert second is not None
    outbox.acknowledge(first)
    outbox.reject(second)

    assert (outbox.published, outbox.acknowledged, outbox.dropped, len(outbox)) == (6, 1, 3, 2)


def send_queue(limit: int) -> SendQueue:
    return SendQueue(limit=limit, repeat_s=60.0, wake=lambda: None)


def test_a_full_outbox_is_reported_once_until_it_was_empty(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    queue = send_queue(limit=4)
    for expected in (1, 2):
        for queued in events("ssss"):
            queue.add(queued)
        assert len(caplog.records) == expected - 1, "it is full, and nothing is lost yet"
        for queued in events("sssssss"):
            queue.add(queued)
        sent = queue.take()
        assert sent is not None
        queue.confirm(sent)
        for queued in events("ss"):  # full again, but it was not empty in between
            queue.add(queued)
        assert len(caplog.records) == expected
        assert "events are lost" in caplog.text
        while (sent := queue.take()) is not None:
            queue.confirm(sent)


def test_half_of_the_outbox_stays_for_events_that_wait() -> None:
    queue = send_queue(limit=6)
    for queued in events("ssssss"):
        queue.add(queued)
    taken = [queue.take() for _ in range(4)]
    assert [queued is None for queued in taken] == [False, False, False, True]


def test_the_session_waits_until_a_topic_is_to_be_repeated() -> None:
    queue = SendQueue(limit=4, repeat_s=10.0, wake=lambda: None)
    topic = Topic("fer-1", MessageKind.STATE)
    queue.put(RetainedTopic(topic, lambda _clock: b"{}", repeats=True))
    assert queue.take() is not None
    assert queue.take() is None
    assert 0 < queue.wait_s() <= 10


def test_connections_after_the_first_are_reconnects() -> None:
    queue = send_queue(limit=4)
    told = [queue.reconnects]
    for _ in range(3):
        queue.connected()
        told.append(queue.reconnects)
    assert told == [0, 0, 1, 2]
