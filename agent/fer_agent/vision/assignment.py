"""The assignment of rows to columns at the least total cost, for the few faces of a frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_IMPOSSIBLE = 1e6
"""A finite stand-in for an infinite cost, which the arithmetic below could not handle."""


def assign(cost: Sequence[Sequence[float]], *, limit: float) -> list[tuple[int, int]]:
    """Pair rows with columns at the least sum of the pairs' costs and of `limit` per row alone.

    A row left alone costs `limit`, so a chain of poor pairs never displaces one good pair.

    Args:
        cost: R rows of C, below 1e6; infinite where a pair is impossible.
        limit: price of leaving a row without a column; no pair costs more.

    Returns:
        (row, column) pairs, rows rising. Empty when there is no row or no column.

    Source: shortest augmenting paths with prices (Jonker and Volgenant, 1987,
    doi:10.1007/BF02278710), in the rectangular form of Crouse, 2016,
    doi:10.1109/TAES.2016.140952.
    """
    if not len(cost) or not len(cost[0]):
        return []
    # Where the rows' best columns differ, as with faces far apart, no assignment can be cheaper.
    apart = []
    for row, prices in enumerate(cost):
        least = min(prices)
        if least < limit:
            apart.append((row, prices.index(least)))
    if len({column for _, column in apart}) == len(apart):
        return apart
    # One more column per row, which only that row can take, stands for staying alone.
    rows, columns = len(cost), len(cost[0])
    padded = np.full((rows, columns + rows), _IMPOSSIBLE)
    padded[:, :columns] = np.minimum(cost, _IMPOSSIBLE)
    padded[np.arange(rows), columns + np.arange(rows)] = limit

    column_of = np.full(rows, -1)
    row_of = np.full(columns + rows, -1)
    row_price = np.zeros(rows)
    column_price = np.zeros(columns + rows)
    for start in range(rows):
        # Dijkstra over reduced costs, from `start` to the nearest free column.
        distance = np.full(columns + rows, np.inf)
        came_from = np.full(columns + rows, start)
        done = np.zeros(columns + rows, bool)
        row, reached = start, 0.0
        while True:
            through = reached + padded[row] - row_price[row] - column_price
            shorter = ~done & (through < distance)
            distance[shorter] = through[shorter]
            came_from[shorter] = row
            column = int(np.argmin(np.where(done, np.inf, distance)))
            reached = float(distance[column])
            if row_of[column] < 0:
                break
            done[column] = True
            row = int(row_of[column])
        row_price[start] += reached
        row_price[row_of[done]] += reached - distance[done]
        column_price[done] -= reached - distance[done]
        while True:  # hand the columns on along the path
            row = int(came_from[column])
            row_of[column] = row
            column_of[row], column = column, int(column_of[row])
            if row == start:
                break
    return [(row, int(column)) for row, column in enumerate(column_of) if column < columns]
