"""Figures about predictions, for tables, manifests and cards."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from fer_agent.vision.classifier import softmax

if TYPE_CHECKING:
    from fer_trainer.data.faceset import BoolArray, Float32Array, Int64Array

ECE_BINS = 15
"""Number of bins as in Guo et al., arXiv:1706.04599."""

COVERAGE = 0.8
"""Share of the crops that get an answer; the others are called `uncertain`."""

HURTFUL = ("angry", "sad")
"""Answers that hurt when they are wrong; people mind being called angry."""

_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class; 0 where nothing was predicted as it or belongs to it."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class AnsweredFigures:
    """Figures of the answers of a classifier that may say `uncertain`.

    Attributes:
        coverage: share of the images that it answers.
        accuracy: share of right answers among them; 0 when it answers none.
    """

    coverage: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class PredictionFigures:
    """Figures about one set of predictions.

    Attributes:
        n: images.
        accuracy: share of right answers.
        interval: 95 % bootstrap interval of the accuracy.
        macro_f1: mean of the classes' F1.
        per_class: figures by label.
        confusion: counts, rows are the truth, columns the answer, in label order.
        ece: expected calibration error over 15 bins.
        answered: figures of the answers above the abstain threshold; None without one.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    per_class: dict[str, ClassFigures]
    confusion: tuple[tuple[int, ...], ...]
    ece: float
    answered: AnsweredFigures | None = None

    @property
    def wrongly_hurtful(self) -> dict[str, float]:
        """Share of each class's images that are wrongly called angry or sad; in [0, 1]."""
        labels = list(self.per_class)
        return {
            label: sum(
                row[labels.index(word)] for word in HURTFUL if word in labels and word != label
            )
            / max(1, sum(row))
            for label, row in zip(labels, self.confusion, strict=True)
        }

    def as_json(self) -> dict[str, Any]:
        """Make a JSON tree."""
        answered = {"answered": asdict(self.answered)} if self.answered is not None else {}
        return {
            **answered,
            "n": self.n,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.interval),
            "macro_f1": self.macro_f1,
            "per_class": {
                label: {
                    "precision": one.precision,
                    "recall": one.recall,
                    "f1": one.f1,
                    "support": one.support,
                }
                for label, one in self.per_class.items()
            },
            "confusion": [list(row) for row in self.confusion],
            "wrongly_called_angry_or_sad": self.wrongly_hurtful,
            "ece": self.ece,
        }


def figures(
    probs: Float32Array,
    truth: Int64Array,
    labels: tuple[str, ...],
    *,
    abstain_below: float | None = None,
) -> PredictionFigures:
    """Compute all figures of one set of predictions.

    Args:
        probs: float (N, C), rows sum to 1; N at least 1.
        truth: int (N,), class indices.
        labels: the C class words.
        abstain_below: the threshold of `uncertain`, for `answered`.
    """
    answers = probs.argmax(axis=1)
    right = answers == truth
    everything = np.arange(len(labels))
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, answers, labels=everything, zero_division=0.0
    )
    return PredictionFigures(
        n=len(truth),
        accuracy=float(right.mean()),
        interval=bootstrap_interval(right.astype(np.float32)),
        macro_f1=float(f1.mean()),
        per_class={
            label: ClassFigures(float(p), float(r), float(f), int(s))
            for label, p, r, f, s in zip(labels, precision, recall, f1, support, strict=True)
        },
        confusion=tuple(
            tuple(int(count) for count in row)
            for row in confusion_matrix(truth, answers, labels=everything)
        ),
        ece=expected_calibration_error(probs.max(axis=1), right.astype(np.float32)),
        answered=None if abstain_below is None else _answered(probs, right, abstain_below),
    )


def _answered(probs: Float32Array, right: BoolArray, abstain_below: float) -> AnsweredFigures:
    sure = probs.max(axis=1) >= abstain_below
    accuracy = float(right[sure].mean()) if sure.any() else 0.0
    return AnsweredFigures(coverage=float(sure.mean()), accuracy=accuracy)


def bootstrap_interval(right: Float32Array, *, seed: int = 0) -> tuple[float, float]:
    """Give the 95 % percentile interval of an accuracy over 2,000 resamples of the images.

    Args:
        right: 1 or 0 for each image, (N,).
        seed: of the resampling.
    """
    # A resample with replacement of 0/1 values has a binomial number of ones.
    draws = np.random.default_rng(seed).binomial(len(right), right.mean(), _RESAMPLES)
    low, high = np.percentile(draws / len(right), (2.5, 97.5))
    return float(low), float(high)


def expected_calibration_error(confidence: Float32Array, right: Float32Array) -> float:
    """Give the mean gap between confidence and accuracy over equal-width bins, weighted by size.

    Args:
        confidence: probability of the answer, (N,), in [0, 1].
        right: 1 or 0, (N,).
    """
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(right))


def fit_temperature(logits: Float32Array, truth: Int64Array) -> float:
    """Find the temperature with the lowest negative log-likelihood, between 0.05 and 20.

    Args:
        logits: (N, C), of a split that is neither trained on nor reported.
        truth: (N,).

    Source: Guo et al., arXiv:1706.04599.
    """
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[rows, truth].mean())

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(best.x))


def probabilities(logits: Float32Array, temperature: float) -> Float32Array:
    """Turn logits (N, C) into probabilities, float32."""
    return softmax(logits, np.float32(temperature))


def abstain_threshold(probs: Float32Array, *, coverage: float = COVERAGE) -> float:
    """Choose the threshold under which the classifier says `uncertain`.

    Args:
        probs: calibrated, (N, C), of the validation split.
        coverage: share of the crops that must still get an answer.

    Returns:
        The largest such threshold, rounded down to three digits.
    """
    threshold = float(np.quantile(probs.max(axis=1), 1.0 - coverage, method="lower"))
    return float(np.floor(threshold * 1000) / 1000)
