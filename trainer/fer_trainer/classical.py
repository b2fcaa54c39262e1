"""Baselines without a network, a support vector machine on LBP or HOG features."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from skimage.feature import hog, local_binary_pattern
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fer_trainer.data.faceset import SIZE_PX, FaceSet, Float32Array, Split, UInt8Array

if TYPE_CHECKING:
    from collections.abc import Callable

    from fer_trainer.data.faceset import Int64Array

    _Describe: TypeAlias = Callable[[UInt8Array], Float32Array]

Features: TypeAlias = Literal["lbp", "hog"]

_CELLS = 6
_CODES = 59
"""Uniform patterns of eight neighbours, all others as one: Ojala et al., 2002."""

_PENALTIES = (0.0003, 0.003, 0.03)
"""C is chosen on the validation split."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassicalResult:
    """A fitted machine's answers.

    Attributes:
        penalty: the C that was chosen.
        valid_accuracy: of that C.
        test_answers: one-hot, float32 (N, C), over the test split.
        weights: numbers in the machine.
        minutes: features and all fits.
    """

    penalty: float
    valid_accuracy: float
    test_answers: Float32Array
    weights: int
    minutes: float


def fit(faces: FaceSet, features: Features, *, seed: int = 1) -> ClassicalResult:
    """Fit a linear SVM and answer the test split.

    Source: Shan et al., Facial expression recognition based on Local Binary Patterns, 2009; Dalal
    and Triggs, Histograms of oriented gradients, 2005.
    """
    started = time.perf_counter()
    describe = _lbp if features == "lbp" else _hog
    described = {split: _describe(faces, split, describe) for split in Split}
    x, y = described[Split.TRAIN]
    machines = {
        penalty: make_pipeline(
            StandardScaler(), LinearSVC(C=penalty, dual=False, random_state=seed, tol=1e-3)
        ).fit(x, y)
        for penalty in _PENALTIES
    }
    accuracy = {c: float(one.score(*described[Split.VALID])) for c, one in machines.items()}
    best_penalty = max(accuracy, key=lambda penalty: accuracy[penalty])
    best = machines[best_penalty]
    answers = np.eye(len(faces.labels), dtype=np.float32)[best.predict(described[Split.TEST][0])]
    return ClassicalResult(
        penalty=best_penalty,
        valid_accuracy=accuracy[best_penalty],
        test_answers=answers,
        weights=int(best[-1].coef_.size + best[-1].intercept_.size),
        minutes=(time.perf_counter() - started) / 60.0,
    )


def _describe(faces: FaceSet, split: Split, describe: _Describe) -> tuple[Float32Array, Int64Array]:
    part = faces.only(split)
    return np.stack([describe(image) for image in part.images]), part.hard_labels


def _lbp(image: UInt8Array) -> Float32Array:
    """Histograms of uniform patterns over 6x6 cells, (2124,)."""
    found: Any = local_binary_pattern(image, P=8, R=1, method="nri_uniform")  # type: ignore[no-untyped-call]  # scikit-image
    codes = found.astype(np.int64)
    side = SIZE_PX // _CELLS
    cells = codes.reshape(_CELLS, side, _CELLS, side).swapaxes(1, 2).reshape(_CELLS**2, -1)
    offset = np.arange(_CELLS**2)[:, np.newaxis] * _CODES
    counts = np.bincount((cells + offset).ravel(), minlength=_CELLS**2 * _CODES)
    return (counts / side**2).astype(np.float32)


def _hog(image: UInt8Array) -> Float32Array:
    """Oriented gradients: 8x8 cells, 2x2 blocks, 9 orientations, (900,)."""
    described: Float32Array = hog(
        image, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2)
    ).astype(np.float32)
    return described
