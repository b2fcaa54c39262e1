from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.config.model import SmootherConfig
from fer_agent.vision.records import EmotionEvent, EmotionScores, EventKind, ModelIdentity, Tracks
from fer_agent.vision.smoother import WARM_UP_S, EmotionSmoother

if TYPE_CHECKING:
    from collections.abc import Callable

    Score = Callable[[float], tuple[float, ...]]

MODEL = ModelIdentity("net", "0" * 64)
LABELS = ("angry", "happy", "neutral")
ANGRY, HAPPY, NEUTRAL = (0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8)
UNSURE = (0.36, 0.34, 0.30)
START_NS = 7_000_000_000
STARTED, UPDATED, ENDED = EventKind.STARTED, EventKind.UPDATED, EventKind.ENDED


def ns(at_s: float) -> int:
    return START_NS + round(at_s * 1e9)


def seconds(captured_ns: int) -> float:
    return (captured_ns - START_NS) / 1e9


def make_smoother(abstain_below: float = 0.4, **settings: float) -> EmotionSmoother:
    return EmotionSmoother(
        SmootherConfig.model_validate(settings | {"abstain_below": abstain_below})
    )


def make_tracks(*track_ids: int, ended: tuple[int, ...] = (), left: float = 10.0) -> Tracks:
    count = len(track_ids)
    return Tracks(
        track_id=np.array(track_ids, np.int64),
        xyxy=np.tile(np.array([left, 20.0, left + 50.0, 80.0], np.float32), (count, 1)),
        score=np.full(count, 0.9, np.float32),
        landmarks=np.zeros((count, 5, 2), np.float32),
        frame_size=(640, 480),
        ended=ended,
    )


def make_scores(*rows: tuple[float, ...], labels: tuple[str, ...] = LABELS) -> EmotionScores:
    return EmotionScores(labels, np.array(rows, np.float32).reshape(len(rows), len(labels)), MODEL)


def play(
    smoother: EmotionSmoother, score: Score, *, fps: float, from_s: float, to_s: float
) -> list[EmotionEvent]:
    """Show one face, track 1, whose probabilities are a function of time."""
    events = []
    for i in range(round((to_s - from_s) * fps)):
        at_s = from_s + i / fps
        events += smoother.update(make_tracks(1), make_scores(score(at_s)), ns(at_s))
    return events


def words(events: list[EmotionEvent]) -> list[tuple[EventKind, str]]:
    return [(event.kind, event.emotion) for event in events]


@pytest.mark.parametrize("fps", [4, 10, 30])
def test_track_starts_after_its_warm_up(fps: int) -> None:
    events = play(make_smoother(), lambda _: HAPPY, fps=fps, from_s=0, to_s=2)
    assert words(events) == [(STARTED, "happy")]
    assert WARM_UP_S <= seconds(events[0].captured_ns) <= WARM_UP_S + 1 / fps
    assert events[0].started_ns == ns(0)
    assert events[0].duration_s == seconds(events[0].captured_ns)


def test_track_starts_at_its_second_sight_at_one_frame_a_second() -> None:
    events = play(make_smoother(), lambda _: HAPPY, fps=1, from_s=0, to_s=3)
    assert [seconds(event.captured_ns) for event in events] == [1.0]


def test_track_starts_at_once_without_dwell() -> None:
    events = make_smoother(dwell_s=0).update(make_tracks(1), make_scores(HAPPY), ns(0))
    assert words(events) == [(STARTED, "happy")]


def test_one_odd_frame_at_the_start_does_not_choose_the_first_word() -> None:
    events = play(
        make_smoother(), lambda at_s: ANGRY if at_s == 0 else HAPPY, fps=30, from_s=0, to_s=1
    )
    assert words(events) == [(STARTED, "happy")]


def test_event_carries_the_last_box_and_what_the_model_said() -> None:
    smoother = make_smoother(dwell_s=0)
    smoother.update(make_tracks(1, left=10), make_scores(HAPPY), ns(0))
    smoother.update(make_tracks(1, left=30), make_scores(HAPPY), ns(0.1))
    (event,) = smoother.finish()
    assert event.kind is ENDED
    assert event.labels == LABELS
    assert event.frame_size == (640, 480)
    np.testing.assert_array_equal(event.xyxy, np.array([30, 20, 80, 80], np.float32))
    np.testing.assert_allclose(event.probs, HAPPY, atol=1e-6)
    assert event.confidence == pytest.approx(0.8)


def test_probabilities_reach_63_percent_of_a_step_after_the_time_constant() -> None:
    smoother = make_smoother(time_constant_s=0.5, update_s=0.001)
    play(smoother, lambda _: (1.0, 0.0, 0.0), fps=50, from_s=0, to_s=20)
    events = play(smoother, lambda _: (0.0, 1.0, 0.0), fps=50, from_s=20, to_s=21)
    after = next(event for event in events if seconds(event.captured_ns) >= 20.0 + 0.5 - 0.02)
    assert after.probs[1] == pytest.approx(1 - np.exp(-1), abs=0.01)
    np.testing.assert_allclose([event.probs.sum() for event in events], 1.0, atol=1e-5)


def test_word_changes_once_after_smoothing_and_dwell() -> None:
    events = play(
        make_smoother(dwell_s=0.5),
        lambda at_s: HAPPY if at_s < 2 else ANGRY,
        fps=20,
        from_s=0,
        to_s=6,
    )
    assert words(events) == [(STARTED, "happy"), (UPDATED, "angry")]
    # angry draws level after ln 2 = 0.69 time constants; then the margin and the dwell.
    assert 2 + 0.35 + 0.5 <= seconds(events[1].captured_ns) <= 2 + 0.35 + 0.5 + 0.15


@pytest.mark.parametrize("fps", [5, 10, 30])
def test_label_that_flickers_changes_nothing(fps: int) -> None:
    flicker = [ANGRY, HAPPY]
    events = play(
        make_smoother(update_s=1000),
        lambda at_s: HAPPY if at_s < 1 else flicker[round(at_s * fps) % 2],
        fps=fps,
        from_s=0,
        to_s=20,
    )
    assert words(events) == [(STARTED, "happy")]


def test_label_that_leads_by_less_than_the_margin_changes_nothing() -> None:
    events = play(
        make_smoother(margin=0.05, update_s=1000),
        lambda at_s: HAPPY if at_s < 1 else (0.51, 0.48, 0.01),
        fps=10,
        from_s=0,
        to_s=20,
    )
    assert words(events) == [(STARTED, "happy")]


def test_label_that_leads_for_less_than_the_dwell_changes_nothing() -> None:
    events = play(
        make_smoother(dwell_s=1.0, time_constant_s=0.05, update_s=1000),
        lambda at_s: ANGRY if 2 <= at_s < 2.8 else HAPPY,
        fps=20,
        from_s=0,
        to_s=6,
    )
    assert words(events) == [(STARTED, "happy")]


def test_two_challengers_that_take_turns_do_not_lend_each_other_time() -> None:
    """Each leads the published word for 0.4 s at a time: never for the dwell of 0.5 s."""
    events = play(
        make_smoother(dwell_s=0.5, time_constant_s=0.001, update_s=1000, abstain_below=0),
        lambda at_s: HAPPY if at_s < 1 else ANGRY if int(at_s / 0.4) % 2 else NEUTRAL,
        fps=20,
        from_s=0,
        to_s=10,
    )
    assert words(events) == [(STARTED, "happy")]


def test_word_is_uncertain_below_the_threshold_and_comes_back_above_it() -> None:
    events = play(
        make_smoother(abstain_below=0.5, update_s=1000),
        lambda at_s: UNSURE if 2 <= at_s < 6 else HAPPY,
        fps=10,
        from_s=0,
        to_s=10,
    )
    assert words(events) == [(STARTED, "happy"), (UPDATED, "uncertain"), (UPDATED, "happy")]
    assert events[1].confidence == pytest.approx(events[1].probs.max())


def test_track_may_start_uncertain() -> None:
    events = play(make_smoother(), lambda _: UNSURE, fps=10, from_s=0, to_s=2)
    assert words(events) == [(STARTED, "uncertain")]


def test_confidence_around_the_threshold_does_not_flicker() -> None:
    rng = np.random.default_rng(5)

    def near_threshold(_: float) -> tuple[float, ...]:
        likeliest = rng.normal(0.4, 0.05)
        return (likeliest, (1 - likeliest) / 2, (1 - likeliest) / 2)

    smoother = make_smoother(abstain_below=0.4, update_s=1000)
    events = play(smoother, near_threshold, fps=15, from_s=0, to_s=60)
    assert len(events) <= 3  # by the raw probabilities the word would change 450 times


def test_steady_track_is_told_again_every_update_s() -> None:
    events = play(make_smoother(update_s=5.0), lambda _: HAPPY, fps=10, from_s=0, to_s=13)
    assert words(events) == [(STARTED, "happy"), (UPDATED, "happy"), (UPDATED, "happy")]
    assert np.diff([event.captured_ns for event in events]).tolist() == [5e9, 5e9]


def mood(at_s: float) -> tuple[float, ...]:
    """Three seconds each of happy, unsure, angry, neutral, with a waver of 2 Hz on it."""
    base = np.array((HAPPY, UNSURE, ANGRY, NEUTRAL)[int(at_s / 3) % 4])
    wavering = base * (1 + 0.2 * np.sin(2 * np.pi * 2 * at_s + np.arange(3)))
    return tuple((wavering / wavering.sum()).tolist())


def test_the_same_story_is_told_at_ten_and_at_thirty_frames_a_second() -> None:
    told = {
        fps: play(make_smoother(update_s=1000), mood, fps=fps, from_s=0, to_s=24)
        for fps in (10, 30)
    }
    assert words(told[10]) == words(told[30])
    assert len(told[10]) == 8
    for slow, fast in zip(told[10], told[30], strict=True):
        assert abs(slow.captured_ns - fast.captured_ns) / 1e9 <= 0.11


def test_face_that_comes_back_is_not_judged_by_one_frame() -> None:
    smoother = make_smoother(update_s=1000)
    play(smoother, lambda _: HAPPY, fps=10, from_s=0, to_s=2)
    for i in range(20, 33):  # unseen for more than two time constants, but not ended
        assert smoother.update(make_tracks(), make_scores(), ns(i / 10)) == []
    smoother.update(make_tracks(1), make_scores(ANGRY), ns(3.3))
    (ended,) = smoother.finish()
    assert ended.emotion == "happy"
    assert ended.probs[1] > 0.6
    assert seconds(ended.captured_ns) == pytest.approx(3.3)


def test_track_ends_as_of_its_last_sight() -> None:
    smoother = make_smoother()
    play(smoother, lambda _: HAPPY, fps=10, from_s=0, to_s=1)
    events = smoother.update(make_tracks(ended=(1,)), make_scores(), ns(2.5))
    assert words(events) == [(ENDED, "happy")]
    assert events[0].captured_ns == ns(0.9)
    assert events[0].duration_s == pytest.approx(0.9)
    assert smoother.finish() == []


def test_track_that_ends_in_its_warm_up_starts_and_ends() -> None:
    smoother = make_smoother()
    assert smoother.update(make_tracks(1), make_scores(HAPPY), ns(0)) == []
    events = smoother.update(make_tracks(ended=(1,)), make_scores(), ns(2))
    assert words(events) == [(STARTED, "happy"), (ENDED, "happy")]
    assert {event.captured_ns for event in events} == {ns(0)}


def test_end_of_an_unknown_track_is_no_event() -> None:
    assert make_smoother().update(make_tracks(ended=(9,)), make_scores(), ns(0)) == []


def test_finish_ends_every_open_track_and_forgets() -> None:
    smoother = make_smoother()
    for i in range(10):
        smoother.update(make_tracks(1, 2), make_scores(HAPPY, ANGRY), ns(i / 10))
    smoother.update(make_tracks(1, 3), make_scores(HAPPY, NEUTRAL), ns(1.0))
    ended = smoother.finish()
    assert [(event.track_id, *word) for event, word in zip(ended, words(ended), strict=True)] == [
        (1, ENDED, "happy"),
        (2, ENDED, "angry"),
        (3, STARTED, "neutral"),
        (3, ENDED, "neutral"),
    ]
    assert [seconds(event.captured_ns) for event in ended] == [1.0, 0.9, 1.0, 1.0]
    assert smoother.finish() == []


def test_events_of_a_frame_come_lowest_id_first() -> None:
    smoother = make_smoother(dwell_s=0)
    smoother.update(make_tracks(2, 5), make_scores(HAPPY, HAPPY), ns(0))
    events = smoother.update(make_tracks(3, 1, ended=(5, 2)), make_scores(HAPPY, ANGRY), ns(0.1))
    assert [event.track_id for event in events] == [1, 2, 3, 5]


def test_other_labels_start_the_probabilities_anew() -> None:
    smoother = make_smoother(update_s=1000)
    play(smoother, lambda _: HAPPY, fps=10, from_s=0, to_s=2)
    labels = ("contempt", "sad")
    events = smoother.update(make_tracks(1), make_scores((0.2, 0.8), labels=labels), ns(2))
    assert words(events) == [(UPDATED, "sad")]
    assert events[0].labels == labels
    np.testing.assert_allclose(events[0].probs, (0.2, 0.8), atol=1e-6)
    assert words(smoother.finish()) == [(ENDED, "sad")]


def test_word_that_another_model_knows_too_stays() -> None:
    smoother = make_smoother(update_s=1000)
    play(smoother, lambda _: HAPPY, fps=10, from_s=0, to_s=2)
    scores = make_scores((0.8, 0.2), labels=("happy", "sad"))
    assert smoother.update(make_tracks(1), scores, ns(2)) == []
    assert words(smoother.finish()) == [(ENDED, "happy")]


def test_scores_of_other_tracks_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        make_smoother().update(make_tracks(1, 2), make_scores(HAPPY), ns(0))


def test_any_history_gives_each_track_one_start_one_end_and_rising_times() -> None:
    rng = np.random.default_rng(17)
    for _ in range(20):
        smoother = make_smoother(abstain_below=0.45)
        open_ids, next_id, at_s = list[int](), 1, 0.0
        told: dict[int, list[EmotionEvent]] = {}
        for _ in range(150):
            at_s += rng.choice([0.03, 0.1, 0.5])
            ended = tuple(track_id for track_id in open_ids if rng.random() < 0.03)
            open_ids = [track_id for track_id in open_ids if track_id not in ended]
            if rng.random() < 0.05:
                open_ids.append(next_id)
                next_id += 1
            seen = [track_id for track_id in open_ids if rng.random() < 0.8]
            rows = [tuple(rng.dirichlet((1.0, 2.0, 1.0)).tolist()) for _ in seen]
            for event in smoother.update(
                make_tracks(*seen, ended=ended), make_scores(*rows), ns(at_s)
            ):
                told.setdefault(event.track_id, []).append(event)
        for event in smoother.finish():
            told.setdefault(event.track_id, []).append(event)
        for events in told.values():
            kinds = [event.kind for event in events]
            assert kinds[0] is STARTED
            assert kinds[-1] is ENDED
            assert set(kinds[1:-1]) <= {UPDATED}
            times = [event.captured_ns for event in events]
            assert times == sorted(times)
            assert {event.emotion for event in events} <= {*LABELS, "uncertain"}
