from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fer_agent.vision.records import (
    EmotionEvent,
    EmotionScores,
    EventKind,
    Faces,
    Frame,
    ModelIdentity,
    Tracks,
)

MODEL = ModelIdentity("net", "0" * 64)


def event(*, started_ns: int = 0, captured_ns: int = 2_500_000_000) -> EmotionEvent:
    return EmotionEvent(
        kind=EventKind.UPDATED,
        track_id=1,
        captured_ns=captured_ns,
        emotion="happy",
        confidence=0.75,
        labels=("happy", "sad"),
        probs=np.array([0.75, 0.25], np.float32),
        xyxy=np.array([0, 0, 10, 10], np.float32),
        frame_size=(64, 48),
        started_ns=started_ns,
        model=MODEL,
    )


def test_frame_says_width_before_height() -> None:
    frame = Frame(luma=np.zeros((48, 64), np.uint8), captured_ns=1, number=0)
    assert frame.size == (64, 48)


def test_gray_frame_repeats_its_luma_in_colour() -> None:
    luma = np.arange(12, dtype=np.uint8).reshape(3, 4)
    bgr = Frame(luma=luma, captured_ns=1, number=0).bgr()
    assert bgr.shape == (3, 4, 3)
    assert all((bgr[:, :, channel] == luma).all() for channel in range(3))


def test_colour_frame_gives_the_picture_of_its_source_and_only_when_asked() -> None:
    asked = []
    colour = np.full((3, 4, 3), 7, np.uint8)

    def to_bgr() -> np.ndarray:
        asked.append(True)
        return colour

    frame = Frame(luma=np.zeros((3, 4), np.uint8), captured_ns=1, number=0, to_bgr=to_bgr)
    assert asked == []
    assert frame.bgr() is colour


@pytest.mark.parametrize(
    "luma",
    [np.zeros((3, 4, 3), np.uint8), np.zeros((3, 4), np.float32), np.zeros(12, np.uint8)],
    ids=["colour", "float", "flat"],
)
def test_frame_refuses_what_is_no_gray_uint8_picture(luma: np.ndarray) -> None:
    with pytest.raises(ValueError, match="luma must be uint8"):
        Frame(luma=luma, captured_ns=1, number=0)


def test_no_faces_still_has_the_shapes_of_faces() -> None:
    faces = Faces.none((64, 48))
    assert len(faces) == 0
    assert faces.xyxy.shape == (0, 4)
    assert faces.landmarks.shape == (0, 5, 2)


def test_faces_refuse_scores_and_boxes_of_different_count() -> None:
    with pytest.raises(ValueError, match="xyxy must be float32"):
        Faces(
            xyxy=np.zeros((2, 4), np.float32),
            score=np.zeros(1, np.float32),
            landmarks=np.zeros((1, 5, 2), np.float32),
            frame_size=(64, 48),
        )


def test_tracks_refuse_ids_of_another_type() -> None:
    with pytest.raises(ValueError, match="track_id must be int64"):
        Tracks(
            track_id=np.zeros(1, np.int32),  # type: ignore[arg-type]  # the wrong type on purpose
            xyxy=np.zeros((1, 4), np.float32),
            score=np.zeros(1, np.float32),
            landmarks=np.zeros((1, 5, 2), np.float32),
            frame_size=(64, 48),
        )


def test_scores_refuse_more_columns_than_labels() -> None:
    with pytest.raises(ValueError, match="probs must be float32"):
        EmotionScores(
            labels=("happy", "sad"),
            probs=np.zeros((1, 3), np.float32),
            model=MODEL,
        )


@pytest.mark.parametrize(
    ("field", "shape"), [("xyxy", (1, 5)), ("score", (1, 1)), ("landmarks", (1, 10))]
)
def test_faces_and_tracks_refuse_arrays_of_another_shape(
    field: str, shape: tuple[int, ...]
) -> None:
    faces = Faces(
        xyxy=np.zeros((1, 4), np.float32),
        score=np.zeros(1, np.float32),
        landmarks=np.zeros((1, 5, 2), np.float32),
        frame_size=(64, 48),
    )
    tracks = Tracks(np.ones(1, np.int64), faces.xyxy, faces.score, faces.landmarks, (64, 48))
    for record in (faces, tracks):
        with pytest.raises(ValueError, match=f"{field} must be float32"):
            replace(record, **{field: np.zeros(shape, np.float32)})


@pytest.mark.parametrize("field", ["probs", "xyxy"])
def test_event_refuses_arrays_of_another_length(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be float32"):
        replace(event(), **{field: np.zeros(3, np.float32)})


def test_duration_runs_from_the_first_sight_to_the_event() -> None:
    assert event(started_ns=500_000_000).duration_s == pytest.approx(2.0)


def test_event_refuses_a_track_that_starts_after_it_was_seen() -> None:
    with pytest.raises(ValueError, match="cannot start after"):
        event(started_ns=3, captured_ns=2)
