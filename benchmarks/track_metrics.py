"""HOTA, IDF1 and id switches of tracks with known truth, after the papers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

ALPHAS = np.arange(1, 20) / 20
"""Overlaps from which a box counts as found, over which HOTA is averaged (Luiten et al.)."""

SAME = 0.5
"""The one overlap that IDF1 and id switches count with, as in the MOT challenge."""

_EPSILON = 1e-9


class TrackedFrame(NamedTuple):
    """The true and the reported faces of one frame; an id stands once in each.

    Attributes:
        true_ids: (T,), never the same in two sequences that are scored together.
        true_xyxy: (T, 4).
        ids: (P,), likewise.
        xyxy: (P, 4).
    """

    true_ids: Ints
    true_xyxy: Floats
    ids: Ints
    xyxy: Floats


class TrackFigures(NamedTuple):
    """Scores from 0 to 1, and counts.

    Attributes:
        hota: higher order tracking accuracy, the root of detection times association accuracy.
        idf1: share of boxes under the one id that fits their person best.
        switches: times that a person's id changed.
        faces: true faces in all frames.
    """

    hota: float
    idf1: float
    switches: int
    faces: int


def track_figures(frames: Sequence[TrackedFrame]) -> TrackFigures:
    """Score tracks.

    Sources: HOTA: Luiten et al., 2020, doi:10.1007/s11263-020-01375-2, sections 5 and 6 (ids are
    first aligned over the whole sequence, as in the authors' TrackEval). IDF1: Ristani et al.,
    2016, arXiv:1609.01775. Id switches: Bernardin and Stiefelhagen, 2008,
    doi:10.1155/2008/246309.
    """
    true_rows = _rows(np.concatenate([frame.true_ids for frame in frames]))
    rows = _rows(np.concatenate([frame.ids for frame in frames]))
    indexed = [
        _Overlaps(
            np.array([true_rows[one] for one in frame.true_ids.tolist()], np.int64),
            np.array([rows[one] for one in frame.ids.tolist()], np.int64),
            overlap(frame.true_xyxy, frame.xyxy),
        )
        for frame in frames
    ]
    true_count, count = np.zeros((len(true_rows), 1)), np.zeros((1, len(rows)))
    for frame in indexed:
        true_count[frame.true] += 1
        count[:, frame.found] += 1
    return TrackFigures(
        _hota(indexed, true_count, count),
        _idf1(indexed, true_count, count),
        _switches(indexed),
        int(true_count.sum()),
    )


class _Overlaps(NamedTuple):
    """A frame's true and reported ids as row numbers, and the overlap of each pair (T, P)."""

    true: Ints
    found: Ints
    overlap: Floats


def overlap(ours: Floats, theirs: Floats) -> Floats:
    """Return the intersection over union of boxes (T, 4) and (P, 4), as (T, P)."""
    left_top = np.maximum(ours[:, None, :2], theirs[None, :, :2])
    right_bottom = np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    shared = np.clip(right_bottom - left_top, 0, None).prod(axis=2)
    area, their_area = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (ours, theirs))
    union = area[:, None] + their_area[None] - shared
    return np.asarray(shared / np.maximum(union, _EPSILON))


def _rows(ids: Ints) -> dict[int, int]:
    return {int(one): row for row, one in enumerate(np.unique(ids))}


def _hota(frames: list[_Overlaps], true_count: Floats, count: Floats) -> float:
    together = np.zeros((len(true_count), count.shape[1]))
    for frame in frames:
        sums = frame.overlap.sum(axis=0) + frame.overlap.sum(axis=1, keepdims=True)
        share = frame.overlap / np.maximum(sums - frame.overlap, _EPSILON)
        together[np.ix_(frame.true, frame.found)] += share
    alignment = together / (true_count + count - together)

    matches = np.zeros((len(ALPHAS), *together.shape))
    for frame in frames:
        worth = alignment[np.ix_(frame.true, frame.found)] * frame.overlap
        rows, columns = linear_sum_assignment(worth, maximize=True)
        found = frame.overlap[rows, columns] >= ALPHAS[:, None] - _EPSILON  # (alphas, pairs)
        matches[:, frame.true[rows], frame.found[columns]] += found
    hits = matches.sum(axis=(1, 2))
    detection = hits / (true_count.sum() + count.sum() - hits)
    association = (matches * matches / (true_count + count - matches)).sum(axis=(1, 2))
    return float(np.sqrt(detection * association / np.maximum(hits, 1)).mean())


def _idf1(frames: list[_Overlaps], true_count: Floats, count: Floats) -> float:
    near = np.zeros((len(true_count), count.shape[1]))
    for frame in frames:
        near[np.ix_(frame.true, frame.found)] += frame.overlap >= SAME
    hits = near[linear_sum_assignment(near, maximize=True)].sum()
    return float(2 * hits / (true_count.sum() + count.sum()))


def _switches(frames: list[_Overlaps]) -> int:
    switches = 0
    last: dict[int, int] = {}
    before: set[tuple[int, int]] = set()
    for frame in frames:
        worth = np.where(frame.overlap >= SAME, frame.overlap, 0.0)
        # A pair of the frame before stays one while it overlaps, even if another overlaps more.
        for row, true in enumerate(frame.true.tolist()):
            for column, found in enumerate(frame.found.tolist()):
                worth[row, column] += 1000.0 * ((true, found) in before and worth[row, column] > 0)
        rows, columns = linear_sum_assignment(worth, maximize=True)
        hits = worth[rows, columns] > 0
        pairs = (frame.true[rows[hits]].tolist(), frame.found[columns[hits]].tolist())
        before = set(zip(*pairs, strict=True))
        for true, found in before:
            switches += last.get(true, found) != found
            last[true] = found
    return switches
