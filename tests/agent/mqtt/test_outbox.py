"""What a full outbox gives up, and in which order the rest is sent."""

from __future__ import annotations

import numpy as np
import pytest

from fer_agent.mqtt.messages import Identity, Origin
from fer_agent.mqtt.outbox import Entry, Outbox
from fer_agent.mqtt.payloads import ModelRef
from fer_agent.vision.records import EmotionEvent, EventKind

ORIGIN = Origin(Identity("fer-1", ""), "front", ModelRef(name="net", sha256="0" * 64))
KINDS = {"s": EventKind.STARTED, "u": EventKind.UPDATED, "e": EventKind.ENDED}


def filled(outbox: Outbox, kinds: str) -> Outbox:
    """Add entries whose sequence is their place in the text."""
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
        )
        outbox.add(Entry(event, ORIGIN, sequence, 0))
    return outbox


def taken(outbox: Outbox) -> list[int]:
    sequences = []
    while (found := outbox.take()) is not None:
        sequences.append(found[1].sequence)
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
def test_a_full_outbox_gives_up_updates_before_others(kinds: str, left: list[int]) -> None:
    outbox = filled(Outbox(4), kinds)

    assert outbox.published == len(kinds)
    assert outbox.dropped == len(kinds) - 4
    assert taken(outbox) == left


def test_what_is_in_flight_counts_but_is_never_given_up() -> None:
    outbox = filled(Outbox(4), "uu")
    in_flight = [outbox.take(), outbox.take()]

    filled(outbox, "uuu")

    assert len(outbox) == 4
    assert outbox.dropped == 1
    assert taken(outbox) == [2, 3]
    assert all(in_flight)


def test_what_a_broken_link_left_open_goes_first_in_its_old_order() -> None:
    outbox = filled(Outbox(9), "suuue")
    numbers = [found[0] for found in (outbox.take(), outbox.take(), outbox.take()) if found]
    outbox.acknowledge(numbers[0])

    outbox.put_back()

    assert taken(outbox) == [2, 3, 4, 5]


def test_updates_put_back_are_given_up_first_again() -> None:
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
    outbox.acknowledge(first[0])
    outbox.refuse(second[0])

    assert (outbox.published, outbox.acknowledged, outbox.dropped, len(outbox)) == (6, 1, 3, 2)
