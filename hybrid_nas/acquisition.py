"""Which design to train next: the one from which the front is expected to gain most.

What a design costs is known exactly before it is trained, so only its quality is a guess: that of a model over the
space (`hybrid_nas.surrogate`), noise included. Because designs can be listed, every one that is left is weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hybrid_nas.dominance import non_dominated
from hybrid_nas.improvement import Room
from hybrid_nas.surrogate import Spellings, posterior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BEYOND = 0.1  # of each objective's range: how far the box reaches on either side of what was seen


@dataclass(frozen=True)
class Known:
    """Trials so far: `rows` of designs with their `quality` (rows, trained objectives) and its `variance` where it is
    foretold, 0 where it was measured; `running`, rows of designs that are being trained."""

    rows: Sequence[int]
    quality: Array
    variance: Array
    running: Sequence[int] = ()


def next_design(spellings: Spellings, efficiency: Array, known: Known, candidates: Sequence[int]) -> int:
    """The row among `candidates` with the largest expected improvement. `efficiency` is (designs, exact objectives);
    smaller is better throughout. What is running counts as if it ended as the model expects, so that workers do not
    all try the same."""
    efficiency = np.log(efficiency) if (efficiency > 0).all() else efficiency
    trained = known.quality.shape[1]
    begun = [*known.rows, *known.running]
    columns = [*begun, *candidates]
    mean, sd = _model(spellings, known.rows, columns, known.quality, known.variance)
    if known.running:
        there = mean[len(known.rows) : len(begun)]
        quality = np.concatenate([known.quality, there])
        variance = np.concatenate([known.variance, np.zeros_like(there)])
        mean, sd = _model(spellings, begun, columns, quality, variance)
    points = np.concatenate([mean, efficiency[columns]], axis=1)
    seen = np.concatenate([known.quality, efficiency[list(known.rows)]], axis=1)
    low = np.minimum(points.min(0), seen.min(0))
    high = np.r_[known.quality.max(0), efficiency[columns].max(0)]
    low[:trained] -= BEYOND * (high - low)[:trained]
    reference = high + BEYOND * np.where(high > low, high - low, 1.0)
    front = points[: len(begun)]
    room = Room.beyond(front[non_dominated(front)], low, reference)
    gains = room.improvement(efficiency[list(candidates)], mean[len(begun) :], sd[len(begun) :])
    return candidates[int(np.argmax(gains))]


def _model(
    spellings: Spellings, rows: Sequence[int], columns: Sequence[int], quality: Array, variance: Array
) -> tuple[Array, Array]:
    found = [posterior(spellings, rows, columns, quality[:, q], variance[:, q]) for q in range(quality.shape[1])]
    return np.stack([mean for mean, _ in found], axis=1), np.stack([sd for _, sd in found], axis=1)
