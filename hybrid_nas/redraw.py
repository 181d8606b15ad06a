"""The noise of a front drawn again and again: how often each design is on it, and how often it is its knee."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hybrid_nas.accuracy import accuracy, log_odds
from hybrid_nas.candidate import Candidate
from hybrid_nas.noise import Noise, Trainings
from hybrid_nas.objective import Objective
from hybrid_nas.student import student


def redraw(
    points: Any,
    candidates: list[Candidate],
    objectives: tuple[Objective, ...],
    values: dict[str, Trainings],
    noise: dict[str, Noise],
    draws: int,
    seed: int,
) -> tuple[Any, Any, int]:
    """Shares of draws in which each candidate is on the front, and is its knee; number of draws. None without noise.

    A draw moves each trained mean by the noise of its seeds: a part common to all trainings of a seed and a part of
    its own, both scaled by sqrt(df / chi2) for the uncertainty of the standard deviation, so that margins are
    Student's t. Accuracies move by their log odds, by the deviation of their level, each proxy for itself. Candidates
    of one proxy move together. Those beaten beyond any plausible noise are not drawn.
    """
    import numpy as np

    from hybrid_nas.dominance import knee, non_dominated, plausible

    noisy = {j: noise[o.name] for j, o in enumerate(objectives) if o.trained}
    if not draws or any(spread.sd is None for spread in noisy.values()):
        return None, None, 0
    proxies = [candidate.key.partition("-")[0] for candidate in candidates]
    points, margin = points.copy(), np.zeros_like(points)
    for j, spread in noisy.items():
        counts = [len(values[objectives[j].name][proxy]) for proxy in proxies]
        if (levels := spread.levels) is not None:
            spreads = [levels.spread(-loss, n) for loss, n in zip(points[:, j], counts, strict=True)]
            margin[:, j] = [student(df, 0.9999) * sd for sd, df in spreads]
            points[:, j] = [-log_odds(-loss) for loss in points[:, j]]
        else:
            far = student(spread.df, 0.9999) * (spread.sd or 0.0)
            margin[:, j] = [far / math.sqrt(n) for n in counts]
    rows = np.flatnonzero(plausible(points - margin, points + margin))
    draws = min(draws, max(100, int(2e6 // len(rows))))
    shifts: dict[int, Shift | OddsShift] = {
        j: (Shift if spread.levels is None else OddsShift).of(
            spread, values[objectives[j].name], [proxies[i] for i in rows]
        )
        for j, spread in noisy.items()
    }
    odds = [j for j, spread in noisy.items() if spread.levels is not None]
    generator = np.random.default_rng(seed)
    on_front, at_knee = np.zeros(len(points)), np.zeros(len(points))
    for _ in range(draws):
        drawn = points[rows]
        for j, shift in shifts.items():
            drawn[:, j] += shift.draw(generator)
        members = np.flatnonzero(non_dominated(drawn))
        on_front[rows[members]] += 1
        drawn[:, odds] = -np.vectorize(accuracy, otypes=[float])(-drawn[:, odds])
        at_knee[rows[members[knee(drawn[members])[0]]]] += 1
    return on_front / draws, at_knee / draws, draws


@dataclass(frozen=True)
class Shift:
    """How the noise of one quantity moves the means of some proxies, a row of `shares` each."""

    common: float
    own: Any
    df: int
    shares: Any
    proxy: Any

    @classmethod
    def of(cls, noise: Noise, values: Trainings, proxies: list[str]) -> Shift:
        import numpy as np

        assert noise.shared is not None
        common, own, df = noise.shared
        names = list(dict.fromkeys(proxies))
        row = {name: i for i, name in enumerate(names)}
        seeds = sorted({seed for name in names for seed in values[name]})
        column = {seed: i for i, seed in enumerate(seeds)}
        shares = np.zeros((len(names), len(seeds)))
        for name in names:
            shares[row[name], [column[seed] for seed in values[name]]] = 1 / len(values[name])
        spread = own * np.sqrt((shares**2).sum(1))
        return cls(common, spread, df, shares, np.array([row[name] for name in proxies]))

    def draw(self, generator: Any) -> Any:
        scale = math.sqrt(self.df / generator.chisquare(self.df))
        together = self.common * (self.shares @ generator.standard_normal(self.shares.shape[1]))
        apart = self.own * generator.standard_normal(len(self.shares))
        return (scale * (together + apart))[self.proxy]


@dataclass(frozen=True)
class OddsShift:
    """As `Shift`, for the log odds of accuracies, whose spread depends on their level."""

    spread: Any
    df: Any
    proxy: Any

    @classmethod
    def of(cls, noise: Noise, values: Trainings, proxies: list[str]) -> OddsShift:
        import numpy as np

        assert noise.levels is not None
        names = list(dict.fromkeys(proxies))
        found = [noise.levels.spread(math.fsum(values[n].values()) / len(values[n]), len(values[n])) for n in names]
        row = {name: i for i, name in enumerate(names)}
        return cls(
            np.array([sd for sd, _ in found]), np.array([df for _, df in found]), np.array([row[n] for n in proxies])
        )

    def draw(self, generator: Any) -> Any:
        """One Student's t for each proxy: the scales of two levels are estimated apart."""
        return (self.spread * generator.standard_t(self.df))[self.proxy]
