"""Figures against their definitions, calibration, and the three protocols."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from fer_trainer import protocols
from fer_trainer.metrics import (
    AnsweredFigures,
    abstain_threshold,
    bootstrap_interval,
    figures,
    fit_temperature,
    probabilities,
)

LABELS = ("angry", "happy", "sad")


def predictions(count: int = 400, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax at temperature `sharpness` is right exactly as often as it says."""
    generator = np.random.default_rng(4)
    logits = generator.normal(0, 1.5, (count, 3)).astype(np.float32)
    probs = probabilities(logits, 1.0)
    truth = np.array([generator.choice(3, p=p / p.sum()) for p in probs.astype(np.float64)])
    return logits * sharpness, truth


def test_figures_agree_with_their_definitions() -> None:
    logits, truth = predictions()
    probs = probabilities(logits, 1.0)
    found = figures(probs, truth, LABELS)
    answers, confidence = probs.argmax(axis=1), probs.max(axis=1)
    right = answers == truth
    f1 = [
        2 * np.sum(right & (truth == label)) / (np.sum(answers == label) + np.sum(truth == label))
        for label in range(3)
    ]
    edges = np.linspace(0.0, 1.0, 16)
    bins = [(confidence >= low) & (confidence < high) for low, high in pairwise(edges)]
    gaps = [abs(confidence[b].mean() - right[b].mean()) * b.mean() for b in bins if b.any()]

    assert found.accuracy == pytest.approx(right.mean())
    assert found.macro_f1 == pytest.approx(np.mean(f1))
    assert found.ece == pytest.approx(sum(gaps), abs=1e-6)
    assert np.sum(found.confusion) == found.n == 400
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert sum(one.support for one in found.per_class.values()) == 400


def test_interval_is_that_of_a_share() -> None:
    low, high = bootstrap_interval(np.array([1] * 70 + [0] * 30, np.float32))
    assert low == pytest.approx(0.61, abs=0.015)
    assert high == pytest.approx(0.79, abs=0.015)
    assert bootstrap_interval(np.ones(9, np.float32)) == (1.0, 1.0)


def test_temperature_undoes_overconfidence() -> None:
    logits, truth = predictions(3000, sharpness=3.0)
    assert fit_temperature(logits, truth) == pytest.approx(3.0, rel=0.1)


def test_threshold_keeps_its_coverage() -> None:
    probs = probabilities(predictions(1000)[0], 1.0)
    threshold = abstain_threshold(probs, coverage=0.9)
    assert 0.9 <= (probs.max(axis=1) >= threshold).mean() < 0.92


def test_answers_above_the_threshold_are_counted_apart() -> None:
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55]], np.float32)
    found = figures(probs, np.array([0, 1, 1, 0]), ("a", "b"), abstain_below=0.6)
    assert found.answered == AnsweredFigures(coverage=0.75, accuracy=pytest.approx(2 / 3))
    assert found.as_json()["answered"]["coverage"] == 0.75
    assert figures(probs, np.array([0, 1, 1, 0]), ("a", "b"), abstain_below=0.95).answered == (
        AnsweredFigures(coverage=0.0, accuracy=0.0)
    )


def test_answers_that_hurt_are_counted_per_class() -> None:
    truth = np.array([0, 0, 1, 1, 1, 1, 2, 2])  # angry, happy, sad
    answers = np.array([0, 2, 0, 1, 2, 1, 2, 1])
    found = figures(np.eye(3, dtype=np.float32)[answers], truth, LABELS)
    assert found.wrongly_hurtful == {"angry": 0.5, "happy": 0.5, "sad": 0.0}
    assert found.as_json()["wrongly_called_angry_or_sad"]["happy"] == 0.5


def test_protocols_show_one_two_and_ten_crops() -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 48, 48), dtype=np.uint8)
    seen: list[np.ndarray] = []

    def predict(crops: np.ndarray) -> np.ndarray:
        seen.append(crops)
        return np.full((len(crops), 2), 0.5, np.float32)

    for protocol, views in (("single", 1), ("flip", 2), ("ten-crop", 10)):
        seen.clear()
        probs = protocols.answers(predict, images, protocol)  # type: ignore[arg-type]  # a test's word
        assert probs.shape == (3, 2)
        assert len(seen) == views
        assert all(crops.shape == (3, 48, 48) and crops.dtype == np.uint8 for crops in seen)
    assert np.array_equal(seen[5], seen[0][:, :, ::-1])
