"""What quality costs: what a cheaper design of the front gives up against the best one, and what it saves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hybrid_nas.candidate import Candidate
from hybrid_nas.front import Front
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.student import student
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, label, readable, told_apart


@dataclass(frozen=True)
class Price:
    """What the cheaper of two designs gives up in `quantity` (`loss` is 0 or more where it is worse), and its gain."""

    quantity: str
    cheaper: int
    better: int
    difference: float
    low: float | None
    high: float | None
    cost: str
    cheaper_cost: float
    better_cost: float

    @property
    def sentence(self) -> str:
        unit = QUANTITIES[self.quantity].unit if self.quantity in QUANTITIES else ""
        interval = (
            "" if self.low is None or self.high is None else f" [{bare(self.low, unit)}, {bare(self.high, unit)}]"
        )
        open_ = self.low is None or self.low <= 0
        verdict = "; the noise does not rule out that it loses nothing" if open_ and interval else ""
        cheaper, better = told_apart(self.cheaper_cost, self.better_cost, QUANTITIES[self.cost].unit)
        return (
            f"gives up {readable(self.difference, unit)}{interval} of {self.quantity} for "
            f"{cheaper} of {label(self.cost)} in place of {better}{verdict}"
        )


def prices(
    complete: list[Trial], objectives: Sequence[Objective], front: Front, named: dict[str, Candidate]
) -> dict[str, Price]:
    """Against the best design in the first trained objective, at the first cost among the objectives."""
    quality = next((o for o in objectives if o.trained), None)
    cost = next((o for o in objectives if not o.trained), None)
    if not named or quality is None or cost is None or f"best {quality.name}" not in named:
        return {}
    values = trainings(complete, quality.name)
    best = named[f"best {quality.name}"]
    found = {}
    for name, candidate in named.items():
        if candidate.key == best.key:
            continue
        difference = quality.loss(candidate.value(quality.name)) - quality.loss(best.value(quality.name))
        one, two = (set(values[c.key.partition("-")[0]]) for c in (candidate, best))
        low, high = _interval(front.noise[quality.name], quality, candidate, best, one, two)
        found[name] = Price(
            quantity=quality.name,
            cheaper=candidate.number,
            better=best.number,
            difference=difference,
            low=low,
            high=high,
            cost=cost.name,
            cheaper_cost=candidate.value(cost.name),
            better_cost=best.value(cost.name),
        )
    return found


def _interval(
    noise: Noise, quality: Objective, one: Candidate, two: Candidate, seeds: set[int], others: set[int]
) -> tuple[float, float] | tuple[None, None]:
    """The 95% interval of how much worse `one` is than `two`. Of accuracies by the two intervals, as MOVER joins them
    [Zou and Donner 2008], so that it stays inside [-1, 1]."""
    a, b = one.estimates[quality.name], two.estimates[quality.name]
    difference = quality.loss(a.mean) - quality.loss(b.mean)
    if noise.levels is not None:
        (low, high), (other_low, other_high) = noise.levels.interval(a.mean, a.n), noise.levels.interval(b.mean, b.n)
        down, up = math.hypot(high - a.mean, b.mean - other_low), math.hypot(a.mean - low, other_high - b.mean)
        return difference - down, difference + up
    half = difference_half_width(noise, seeds, others)
    return (None, None) if half is None else (difference - half, difference + half)


def difference_half_width(noise: Noise, one: set[int], two: set[int]) -> float | None:
    """Half of the 95% interval of the difference of two means over these seeds; shared seeds cancel their shifts."""
    if noise.shared is None:
        return None
    common, own, df = noise.shared
    shifts = sum(((seed in one) / len(one) - (seed in two) / len(two)) ** 2 for seed in one | two)
    return student(df) * math.sqrt(common**2 * shifts + own**2 * (1 / len(one) + 1 / len(two)))
