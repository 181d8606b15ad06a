"""Noise: how far a trained quantity moves when nothing but the seed changes, measured from replicates.

The unit is a training: one proxy model at one seed. Designs that are one model at the proxy scale share it, so noise
is counted over proxies, never over designs. At one seed all candidates see the same batches, so part of the noise is
common to them: `own_sd` is what remains of `sd` once the mean effect of each seed is taken out, and it is what blurs
a difference between two trainings at the same seed (common random numbers).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hybrid_nas.accuracy import AccuracyNoise
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.student import student
from hybrid_nas.trial import Trial

Trainings = dict[str, dict[int, float]]
"""Proxy id -> seed -> value of one trained quantity."""


def proxy_id(trial: Trial) -> str:
    """The id of the trained model, from the trial's cached key."""
    return trial.key.partition("-")[0]


def trained_quantities(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Trained quantities that at least one complete trial has, in the order of `QUANTITIES`."""
    found = {name for trial in trials if trial.state == "complete" for name in trial.values}
    known = [name for name, quantity in QUANTITIES.items() if quantity.trained and name in found]
    return (*known, *sorted(found - set(QUANTITIES)))


def trainings(trials: Iterable[Trial], quantity: str) -> Trainings:
    """Distinct trainings of complete trials. Trials that share one count once.

    ValueError where a complete trial holds a value that is not finite.
    """
    seen: dict[str, dict[int, list[float]]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.state != "complete" or quantity not in trial.values:
            continue
        value = trial.values[quantity]
        if not math.isfinite(value):
            raise ValueError(
                f"trial {trial.number}: {quantity} of a complete trial must be a finite number, found {value}; "
                "a training that diverged is a failed trial"
            )
        seen.setdefault(proxy_id(trial), {}).setdefault(trial.seed, []).append(value)
    return {
        proxy: {seed: math.fsum(sorted(values)) / len(values) for seed, values in sorted(seeds.items())}
        for proxy, seeds in sorted(seen.items())
    }


@dataclass(frozen=True)
class Noise:
    """Pooled standard deviations of one quantity; None where too few replicates were trained to tell.

    `df` degrees of freedom belong to `sd`, `own_df` to `own_sd`. `seed_effects` is the mean shift of each seed against
    the seed most trainings have, in the quantity's unit. `levels` is the noise of an accuracy, which depends on its
    level: intervals and floors come from it, and `sd` is no more than a mean over all levels.
    """

    quantity: str
    sd: float | None
    df: int
    own_sd: float | None
    own_df: int
    replicated: int
    seed_effects: Mapping[int, float]
    levels: AccuracyNoise | None = None

    @classmethod
    def of(cls, quantity: str, values: Trainings) -> Noise:
        """Pools within-proxy variance over all proxies trained at two seeds or more."""
        repeated = {proxy: seeds for proxy, seeds in values.items() if len(seeds) > 1}
        df = sum(len(seeds) - 1 for seeds in repeated.values())
        if not df:
            return cls(quantity, None, 0, None, 0, 0, {})
        total, own, rank, effects = _two_way(repeated, _base_seed(values))
        own_df = df - rank
        own_sd = math.sqrt(own / own_df) if own_df > 0 else None
        levels = AccuracyNoise.of(seeds.values() for seeds in repeated.values()) if bounded(quantity, values) else None
        return cls(quantity, math.sqrt(total / df), df, own_sd, own_df, len(repeated), effects, levels)

    @property
    def shared(self) -> tuple[float, float, int] | None:
        """(SD common to all trainings of a seed, SD of a training's own, degrees of freedom of the latter).

        Where no common part shows, all of `sd` is a training's own.
        """
        if self.sd is None:
            return None
        if self.own_sd is None or self.own_sd >= self.sd:
            return 0.0, self.sd, self.df
        return math.sqrt(self.sd**2 - self.own_sd**2), self.own_sd, self.own_df

    def interval(self, mean: float, n: int) -> tuple[float, float] | None:
        """The 95% interval of a mean over `n` seeds."""
        if self.sd is None:
            return None
        if self.levels is not None:
            return self.levels.interval(mean, n)
        half = student(self.df) * self.sd / math.sqrt(n)
        return mean - half, mean + half

    def apart(self, one: float, other: float) -> bool:
        """Whether two trainings of different seeds differ beyond the noise at 95%; False where that is unknown."""
        if self.levels is not None:
            return self.levels.apart(one, other)
        return self.floor is not None and abs(one - other) > self.floor

    @property
    def floor(self) -> float | None:
        """Smallest difference that two trials of one seed each show at 95%, their seeds being different. None for an
        accuracy, where it depends on the level."""
        if self.sd is None or self.levels is not None:
            return None
        return student(self.df) * math.sqrt(2) * self.sd

    @property
    def same_seed_floor(self) -> float | None:
        """As `floor`, for two trials at the same seed."""
        if self.shared is None or self.levels is not None:
            return None
        _, own, df = self.shared
        return student(df) * math.sqrt(2) * own

    def to_dict(self) -> dict[str, Any]:
        return {
            "sd": self.sd,
            "df": self.df,
            "own_sd": self.own_sd,
            "own_df": self.own_df,
            "replicated_proxies": self.replicated,
            "floor": self.floor,
            "same_seed_floor": self.same_seed_floor,
            "levels": None if self.levels is None else self.levels.to_dict(),
        }


def bounded(quantity: str, values: Trainings) -> bool:
    """Whether the quantity is an accuracy, all its values from 0 to 1 (a score by rank or deviation is none)."""
    known = QUANTITIES.get(quantity) or (QUANTITIES.get(quantity.partition("(")[0]) if quantity[-1:] == ")" else None)
    inside = all(0 <= value <= 1 for seeds in values.values() for value in seeds.values())
    return known is not None and known.unit == "accuracy" and inside


def _base_seed(values: Trainings) -> int:
    """The seed that most proxies were trained at, the lowest of equals."""
    counts: dict[int, int] = {}
    for seeds in values.values():
        for seed in seeds:
            counts[seed] = counts.get(seed, 0) + 1
    return min(counts, key=lambda seed: (-counts[seed], seed))


def _two_way(repeated: Trainings, base: int) -> tuple[float, float, int, dict[int, float]]:
    """Sums of squares within proxies, without and with the seeds' own effects; rank of those effects; the effects.

    Proxy means are projected out first (Frisch-Waugh-Lovell), which leaves one small least-squares problem over seeds.
    """
    import numpy as np

    seeds = sorted({seed for by_seed in repeated.values() for seed in by_seed})
    column = {seed: i for i, seed in enumerate(seeds)}
    rows, targets = [], []
    for by_seed in repeated.values():
        dummies = np.zeros((len(by_seed), len(seeds)))
        dummies[range(len(by_seed)), [column[seed] for seed in by_seed]] = 1
        y = np.array(list(by_seed.values()))
        rows.append(dummies - dummies.mean(0))
        targets.append(y - y.mean())
    x, y = np.concatenate(rows), np.concatenate(targets)
    solution, _, rank, _ = np.linalg.lstsq(x, y, rcond=None)
    residual = y - x @ solution
    origin = solution[column[base]] if base in column else 0.0
    effects = {seed: float(solution[column[seed]] - origin) for seed in seeds}
    return float(y @ y), float(residual @ residual), int(rank), effects
