"""A model that changes between two frames: tracks go on, events say which model saw their frame."""

from __future__ import annotations

import numpy as np

from fer_agent.config.model import SmootherConfig
from fer_agent.models.emotions import EMOTIONS
from fer_agent.vision.records import EmotionScores, ModelIdentity, Tracks
from fer_agent.vision.smoother import EmotionSmoother

OLD = ModelIdentity("old", "0" * 64, abstain_below=0.3)
NEW = ModelIdentity("new", "1" * 64, abstain_below=0.7)


def one_track() -> Tracks:
    return Tracks(
        track_id=np.array([1], np.int64),
        xyxy=np.array([[10, 20, 60, 80]], np.float32),
        score=np.full(1, 0.9, np.float32),
        landmarks=np.zeros((1, 5, 2), np.float32),
        frame_size=(640, 480),
    )


def test_events_name_the_model_that_saw_their_frame() -> None:
    smoother = EmotionSmoother(SmootherConfig(dwell_s=0.0, update_s=0.1))
    told = []
    for frame in range(10):
        model = OLD if frame < 5 else NEW
        seen = EmotionScores(("happy", "sad"), np.array([[0.9, 0.1]], np.float32), model)
        told += smoother.update(one_track(), seen, frame * 200_000_000)
    assert [event.model for event in told] == [OLD] * 5 + [NEW] * 5
    (ended,) = smoother.finish()
    assert ended.model == NEW


def test_eight_classes_after_seven_neither_end_nor_lose_a_track() -> None:
    smoother = EmotionSmoother(SmootherConfig(dwell_s=0.0))
    seven, eight = EMOTIONS[:7], EMOTIONS
    told = []
    for frame in range(10):
        labels, model = (seven, OLD) if frame < 5 else (eight, NEW)
        probs = np.full((1, len(labels)), 0.02, np.float32)
        probs[0, labels.index("happy" if frame < 5 else "contempt")] = 0.86
        seen = EmotionScores(labels, probs, model)
        told += smoother.update(one_track(), seen, frame * 200_000_000)
    assert [(event.kind.value, event.emotion) for event in told] == [
        ("started", "happy"),
        ("updated", "contempt"),
    ]
    assert told[-1].labels == eight


def test_the_threshold_to_abstain_is_the_new_models_unless_the_configuration_has_one() -> None:
    for configured, word in ((None, "uncertain"), (0.2, "happy")):
        smoother = EmotionSmoother(SmootherConfig(dwell_s=0.0, abstain_below=configured))
        for frame, model in enumerate([OLD, NEW, NEW]):
            seen = EmotionScores(("happy", "sad"), np.array([[0.6, 0.4]], np.float32), model)
            smoother.update(one_track(), seen, frame * 500_000_000)
        (ended,) = smoother.finish()
        assert ended.emotion == word
