"""Expected hypervolume improvement where some objectives are known exactly and the rest by a mean and a deviation.

The box between the ideal and the reference point is filled with points that no member of the front dominates. A
candidate improves the hypervolume by the share of them that it dominates, so the expected improvement is the mean over
the points of the probability that it dominates each: a product of normal distributions, exact but for the filling, in
any number of objectives [arXiv:2006.05078 for the exact one by boxes].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

POINTS = 4096
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


@dataclass(frozen=True)
class Room:
    """What a front leaves to be won: `points` (m, objectives) of the box that no member dominates, and the share of
    the box that they stand for."""

    points: Array
    share: float

    @classmethod
    def beyond(cls, front: Array, ideal: Array, reference: Array, points: int = POINTS) -> Room:
        """`front` (members, objectives), smaller better in every column, as in all of this."""
        filling = ideal + spread_out(points, len(ideal)) * (reference - ideal)
        free = np.ones(points, dtype=bool)
        for member in front:
            free &= ~(member <= filling).all(1)
        return cls(filling[free], float(free.mean()))

    def improvement(self, known: Array, mean: Array, sd: Array) -> Array:
        """Expected improvement of each candidate as a share of the box. The columns of `points` are those of `mean`
        and `sd` (candidates, trained objectives), then those of `known` (candidates, exact objectives)."""
        from scipy.special import ndtr

        trained = mean.shape[1]
        if not len(self.points):
            return np.zeros(len(mean))
        gains = np.empty(len(mean))
        for i in range(len(mean)):  # a candidate at a time: memory stays small, and most points fall away at once
            there = self.points[(known[i] <= self.points[:, trained:]).all(1), :trained]
            chance = ndtr((there - mean[i]) / np.maximum(sd[i], 1e-9)).prod(1)
            gains[i] = chance.sum() / len(self.points) * self.share
        return gains


def spread_out(count: int, dimensions: int) -> Array:
    """`count` points that fill the unit cube evenly: Halton's sequence, its first point left out."""
    columns = []
    for prime in PRIMES[:dimensions]:
        index, value, part = np.arange(1, count + 1), np.zeros(count), 1.0
        while index.any():
            part /= prime
            value += part * (index % prime)
            index //= prime
        columns.append(value)
    return np.stack(columns, axis=1)
