"""Dominance, hypervolume and knee of points, smaller better in every column. Arrays of shape (points, objectives)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]
    Mask = NDArray[np.bool_]

PAIRWISE_UP_TO = 200


def non_dominated(points: Points) -> Mask:
    """True where no other point is at least as good in every column and better in one. Equal points stand together.

    One or two columns: n log n. More: n times the size of the front.
    """
    n, objectives = points.shape
    if n == 0:
        return np.zeros(0, dtype=bool)
    if objectives == 1:
        return np.asarray(points[:, 0] == points[:, 0].min())
    if objectives == 2:
        return _non_dominated_2(points)
    if n <= PAIRWISE_UP_TO:
        no_worse = (points[:, None] <= points[None]).all(-1)
        return np.asarray(~(no_worse & ~no_worse.T).any(0))
    unique, inverse = np.unique(points, axis=0, return_inverse=True)  # sorted, so the first left is never dominated
    keep = np.zeros(len(unique), dtype=bool)
    left = np.arange(len(unique))
    while left.size:
        first, left = left[0], left[1:]
        keep[first] = True
        left = left[(unique[left] < unique[first]).any(1)]
    return np.asarray(keep[inverse.reshape(-1)])


def _non_dominated_2(points: Points) -> Mask:
    order = np.lexsort((points[:, 1], points[:, 0]))
    x, y = points[order].T
    starts = np.flatnonzero(np.r_[True, x[1:] > x[:-1]])
    group = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(x)]))
    best = y[starts]  # of each distinct x
    before = np.r_[np.inf, np.minimum.accumulate(best)[:-1]]
    mask = np.empty(len(x), dtype=bool)
    mask[order] = (y == best[group]) & (y < before[group])
    return mask


def plausible(optimistic: Points, pessimistic: Points) -> Mask:
    """True where no other point is better even if it were at its worst and this one at its best."""
    rivals = np.unique(pessimistic[non_dominated(pessimistic)], axis=0)
    mask = np.ones(len(optimistic), dtype=bool)
    for rival in rivals:
        mask &= ~((rival <= optimistic).all(1) & (rival < optimistic).any(1))
    return mask


def hypervolume(points: Points, reference: Points) -> float:
    """Volume between the points and `reference`, exact, in the units of the columns multiplied.

    Points not better than the reference in every column add nothing. Slices along the last column, so the work grows
    by a factor of the number of points with each objective beyond two.
    """
    inside = points[(points < reference).all(1)]
    if not len(inside):
        return 0.0
    front = np.unique(inside[non_dominated(inside)], axis=0)
    if front.shape[1] == 1:
        return float(reference[0] - front[0, 0])
    if front.shape[1] == 2:  # sorted by the first column, so the second falls
        widths = np.r_[front[1:, 0], reference[0]] - front[:, 0]
        return float(widths @ (reference[1] - front[:, 1]))
    front = front[np.argsort(front[:, -1], kind="stable")]
    heights = np.r_[front[1:, -1], reference[-1]] - front[:, -1]
    return float(
        sum(height * hypervolume(front[: i + 1, :-1], reference[:-1]) for i, height in enumerate(heights) if height > 0)
    )


def knee(front: Points) -> tuple[int, float]:
    """Row of the knee and its distance from the plane through the corners best in one objective, worst in the others.

    Columns are scaled to 0 (best) and 1 (worst) over `front`. The distance is positive towards the ideal point; where
    it is 0, the front has no knee and the row is that of an end, the best in the first objective.
    """
    low, high = front.min(0), front.max(0)
    scaled = (front - low) / np.where(high > low, high - low, 1.0)
    flat = int((high <= low).sum())  # a column in which all are equal is 0 throughout and says nothing
    objectives = front.shape[1] - flat
    distance = (max(objectives - 1, 0) - scaled.sum(1)) / np.sqrt(max(objectives, 1))
    distance = np.round(distance, 12)
    row = int(np.lexsort((*front.T[::-1], -distance))[0])
    return row, float(distance[row])
