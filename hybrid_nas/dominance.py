"""Dominance, hypervolume and knee of points, smaller better in every column. Arrays of shape (points, objectives)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Points = NDArray[np.float64]
    Mask = NDArray[np.bool_]
    Rows = NDArray[np.intp]

PAIRWISE_UP_TO = 200


def non_dominated(points: Points) -> Mask:
    """True where no other point is at least as good in every column and better in one. Equal points stand together.

    n log n for one or two columns, by halves (Kung, Luccio and Preparata 1975) for more: another factor of log n for
    each column beyond two, at most.
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
    unique, inverse = np.unique(points, axis=0, return_inverse=True)
    keep = np.zeros(len(unique), dtype=bool)
    keep[_front(unique, np.arange(len(unique)))] = True
    return np.asarray(keep[inverse.reshape(-1)])


def _front(points: Points, rows: Rows) -> Rows:
    """Those of `rows` that no other beats; `points` are distinct and sorted, so none is beaten by a later one."""
    if len(rows) <= PAIRWISE_UP_TO:
        some = points[rows]
        alone: Mask = (some[:, None] <= some[None]).all(-1).sum(0) == 1  # no worse than it: itself
        return rows[alone]
    half = len(rows) // 2
    early, late = _front(points, rows[:half]), _front(points, rows[half:])
    return np.concatenate([early, late[~_beaten(points[early, 1:], points[late, 1:])]])


def _beaten(rivals: Points, points: Points) -> Mask:
    """True where a rival is at least as good in every column."""
    columns = points.shape[1]
    if not len(rivals) or not len(points):
        return np.zeros(len(points), dtype=bool)
    if columns == 1:
        return np.asarray(points[:, 0] >= rivals.min())
    if columns == 2:
        rivals = rivals[np.argsort(rivals[:, 0], kind="stable")]
        before = np.searchsorted(rivals[:, 0], points[:, 0], side="right")
        least = np.r_[np.inf, np.minimum.accumulate(rivals[:, 1])]
        return np.asarray(least[before] <= points[:, 1])
    if len(rivals) * len(points) <= PAIRWISE_UP_TO**2:
        return np.asarray((rivals[:, None] <= points[None]).all(-1).any(0))
    first = np.concatenate([rivals[:, 0], points[:, 0]])
    middle, most = np.partition(first, len(first) // 2)[len(first) // 2], first.max()
    if middle == most:  # so that something lies above
        if first.min() == most:
            return _beaten(rivals[:, 1:], points[:, 1:])
        middle = first[first < most].max()
    low, high = rivals[:, 0] <= middle, points[:, 0] > middle
    beaten = np.empty(len(points), dtype=bool)
    beaten[~high] = _beaten(rivals[low], points[~high])
    beaten[high] = _beaten(rivals[~low], points[high]) | _beaten(rivals[low][:, 1:], points[high][:, 1:])
    return beaten


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
    rivals = pessimistic[non_dominated(pessimistic)]
    there = set(map(tuple, rivals.tolist()))  # what equals a rival is beaten by none: rivals do not beat each other
    same = np.fromiter((tuple(row) in there for row in optimistic.tolist()), bool, len(optimistic))
    return np.asarray(~_beaten(rivals, optimistic) | same)


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
