"""One-to-one assignment of queries to objects (the Hungarian method; Kuhn 1955, in the shortest-path form)."""

from __future__ import annotations

import numpy as np


def assign(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cheapest one-to-one assignment of a finite (n, m) cost, min(n, m) pairs, rows rising.

    Shortest augmenting paths with potentials, O(n * n * m); agrees with ``scipy.optimize.linear_sum_assignment``.
    Raises ValueError for a cost that is not a finite matrix.
    """
    cost = np.asarray(cost, np.float64)
    if cost.ndim != 2 or not np.isfinite(cost).all():
        raise ValueError(f"cost has shape {cost.shape}; expected a finite matrix")
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    n, m = cost.shape
    row_potential, column_potential = np.zeros(n + 1), np.zeros(m + 1)
    owner = np.zeros(m + 1, int)  # the row (from 1) that a column belongs to
    for row in range(1, n + 1):
        owner[0], column = row, 0
        shortest, came_from, done = np.full(m + 1, np.inf), np.zeros(m + 1, int), np.zeros(m + 1, bool)
        while owner[column]:
            done[column] = True
            reduced = cost[owner[column] - 1] - row_potential[owner[column]] - column_potential[1:]
            better = (reduced < shortest[1:]) & ~done[1:]
            shortest[1:][better], came_from[1:][better] = reduced[better], column
            open_columns = np.where(done[1:], np.inf, shortest[1:])
            nearest = int(open_columns.argmin()) + 1
            delta = open_columns[nearest - 1]
            row_potential[owner[done]] += delta
            column_potential[done] -= delta
            shortest[~done] -= delta
            column = nearest
        while column:
            owner[column] = owner[came_from[column]]
            column = came_from[column]
    pairs = sorted((owner[c] - 1, c - 1) for c in range(1, m + 1) if owner[c])
    return np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs], int)
