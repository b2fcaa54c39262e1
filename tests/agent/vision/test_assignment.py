from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fer_agent.vision.assignment import assign

if TYPE_CHECKING:
    from numpy.typing import NDArray


def total(cost: NDArray[np.float64], pairs: list[tuple[int, int]], limit: float) -> float:
    return float(sum(cost[pair] for pair in pairs) + limit * (len(cost) - len(pairs)))


def least_total(cost: NDArray[np.float64], limit: float) -> float:
    """Try every way to pair the rows with columns or with nothing."""
    rows, columns = cost.shape
    return min(
        total(cost, [(row, column) for row, column in enumerate(way) if column < columns], limit)
        for way in permutations(range(columns + rows), rows)
    )


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2), (3, 3), (4, 2), (2, 4), (4, 4)])
def test_total_is_the_least_of_all_pairings(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(7)
    for _ in range(5):
        cost = rng.uniform(0.0, 2.0, shape)
        cost[rng.random(shape) < 0.3] = np.inf
        pairs = assign(cost.tolist(), limit=1.2)
        assert total(cost, pairs, 1.2) == pytest.approx(least_total(cost, 1.2))
        assert len({column for _, column in pairs}) == len(pairs)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_pairs_with_nothing(shape: tuple[int, int]) -> None:
    assert assign(np.empty(shape).tolist(), limit=1.0) == []


def test_impossible_and_too_dear_pairs_are_left_alone() -> None:
    assert assign([[np.inf, 1.3], [0.2, np.inf]], limit=1.2) == [(1, 0)]


def test_greed_does_not_win_over_the_sum() -> None:
    # The cheapest single pair (0, 0) would leave row 1 with the dearest.
    assert assign([[0.1, 0.2], [0.2, 0.9]], limit=2.0) == [(0, 1), (1, 0)]


def test_two_poor_pairs_do_not_displace_a_good_one() -> None:
    assert assign([[1.2, np.inf], [0.0, 1.2]], limit=1.5) == [(1, 0)]
