"""The order and the times in which retained topics are sent."""

from __future__ import annotations

from fer_agent.mqtt.messages import MessageKind, Topic
from fer_agent.mqtt.retained import RetainedTopic, RetainedTopics

SECOND_NS = 1_000_000_000


def topic(kind: MessageKind, **settings: bool) -> RetainedTopic:
    return RetainedTopic(Topic("d-1", kind), lambda _clock: b"{}", **settings)


def taken(topics: RetainedTopics, now_ns: int = 0) -> list[RetainedTopic]:
    found: list[RetainedTopic] = []
    while len(found) < 9 and (one := topics.take(now_ns)) is not None:
        found.append(one)
    return found


def test_topics_are_sent_once_in_their_order_and_all_again_after_connecting() -> None:
    topics = RetainedTopics(30 * SECOND_NS)
    info, health = topic(MessageKind.INFO), topic(MessageKind.HEALTH)
    topics.put(info, health)
    assert taken(topics) == [info, health]
    newer = topic(MessageKind.INFO)
    topics.put(newer)
    assert taken(topics, 1000 * SECOND_NS) == [newer]
    newer.last = b"{}"
    topics.all_due()
    assert taken(topics) == [newer, health]
    assert newer.last is None, "the broker may have lost it"
    assert topics.next_ns() is None


def test_a_topic_that_repeats_is_sent_at_its_interval() -> None:
    topics = RetainedTopics(30 * SECOND_NS)
    state = topic(MessageKind.STATE, repeats=True)
    topics.put(state, topic(MessageKind.INFO))
    taken(topics, 100 * SECOND_NS)
    assert topics.next_ns() == 130 * SECOND_NS
    assert taken(topics, 130 * SECOND_NS - 1) == []
    assert taken(topics, 130 * SECOND_NS) == [state]
    assert topics.next_ns() == 160 * SECOND_NS


def test_an_equal_payload_that_is_left_out_does_not_put_off_the_repetition() -> None:
    topics = RetainedTopics(30 * SECOND_NS)
    emotion = topic(MessageKind.EMOTION, repeats=True, only_changes=True)
    state = topic(MessageKind.STATE, repeats=True)
    topics.put(emotion, state)
    taken(topics, 100 * SECOND_NS)
    emotion.last = state.last = b"{}"
    emotion.due = state.due = True
    taken(topics, 110 * SECOND_NS)
    assert topics.next_ns() == 130 * SECOND_NS
    assert taken(topics, 130 * SECOND_NS) == [emotion]
    assert emotion.last is None, "it is sent although it is equal"


def test_a_cleared_topic_is_forgotten_once_that_is_confirmed_unless_it_is_back() -> None:
    topics = RetainedTopics(30 * SECOND_NS)
    alert, cleared = topic(MessageKind.ALERT), topic(MessageKind.ALERT, clears=True)
    topics.put(alert)
    topics.confirm(alert)
    assert alert.topic in topics
    topics.put(cleared)
    topics.put(alert)
    topics.confirm(cleared)
    assert alert.topic in topics
    topics.put(cleared)
    topics.confirm(cleared)
    assert alert.topic not in topics
