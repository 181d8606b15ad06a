"""What each choice does to a trained quantity: contrasts between its options, each with a standard error.

Two ways, the sharper of which is reported:

- model: least squares of main effects over the trainings to which the choice applies. The unit is a proxy, its value
  the mean over seeds with each seed's common shift taken out. The residual variance is what main effects do not
  explain (interactions) plus noise, estimated by moments as in a random-effects meta-regression (Hedges and Olkin
  1985) and scaled as by [Knapp and Hartung 2003], never below the noise of replicates.
- pairs: differences between trainings at one seed whose designs differ in this choice alone. All candidates see the
  same batches, so these carry less noise; they hold for any interaction, but only such designs serve as there are.

Replicates that were trained because a design did well would favour the options it has; they measure the noise, but
only seeds that all designs were trained at enter the effects beside the search's own.

Trainings that were stopped may take part with a predicted final value (see `predicted`), in the model alone.

Where two options of a choice are one model at the proxy scale, the model gives each half of that training, and pairs
leave it out: it says nothing about their difference.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from hybrid_nas.choices import Settings, settings_of
from hybrid_nas.coded import Coded
from hybrid_nas.noise import Noise, Trainings, proxy_id
from hybrid_nas.predicted import Predictions
from hybrid_nas.student import student, two_sided_p
from hybrid_nas.trial import Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Mask = NDArray[np.bool_]

MIN_DF = 3
MIN_PAIRS = 3
PLANNED = 0.9  # share of the proxies trained at a seed, from which on the seed is no reward for doing well
SINGULAR = 1e-10  # of the largest square: what lies below it is a direction that the trials say nothing about
NONE = Predictions()
SHARPER = 0.9  # pairs replace the model only where clearly sharper: taking the narrower of two equals is a bias
Weights = Mapping[str, float]
"""Option -> weight of a contrast; the weights add up to 0."""


@dataclass(frozen=True)
class Contrast:
    """An estimated difference, its standard error and degrees of freedom. `n` counts proxies or pairs."""

    difference: float
    error: float
    df: float
    n: int
    method: Literal["model", "pairs"]

    @property
    def half_width(self) -> float:
        return student(self.df) * self.error

    @property
    def p(self) -> float:
        if self.error == 0:
            return 0.0 if self.difference else 1.0
        return two_sided_p(self.difference / self.error, self.df)


class Effects:
    """Contrasts of one quantity over complete trials. Built once, asked by choice."""

    def __init__(
        self,
        trials: Iterable[Trial],
        values: Trainings,
        noise: Noise,
        settings_of: Callable[[Trial], Settings | None] = lambda trial: settings_of(trial.design),
        predictions: Predictions = NONE,
    ) -> None:
        """`settings_of` may look at a trial otherwise than by its choices; trials for which it gives None are left
        out. `predictions` stand for trainings that were stopped, in the model and never in pairs."""
        self.noise = noise
        self.settings_of = settings_of
        self.predicted = predictions.by_proxy if noise.shared and noise.shared[1] > 0 else {}
        values = {**values, **{proxy: {seed: value} for proxy, (seed, value, _) in self.predicted.items()}}
        designs: dict[str, list[Settings]] = {}
        searched: set[tuple[str, int]] = set()
        for trial in sorted(trials, key=lambda trial: trial.number):
            proxy = proxy_id(trial)
            settings = settings_of(trial)
            if settings is None:
                continue
            told = trial.state == "complete" or (trial.state == "stopped" and proxy in self.predicted)
            if told and proxy in values and settings not in designs.setdefault(proxy, []):
                designs[proxy].append(settings)
            if trial.replicate_of is None:
                searched.add((proxy, trial.seed))
        self.designs = {proxy: designs[proxy] for proxy in sorted(designs)}
        common, own, self.own_df = noise.shared or (0.0, 0.0, 0)
        self.variance = own**2
        shifts = noise.seed_effects if common else {}
        seen = Counter(seed for proxy in self.designs for seed in values[proxy])
        planned = {seed for seed, count in seen.items() if count >= PLANNED * len(self.designs)}
        self.trainings = {
            proxy: {
                s: v - shifts.get(s, 0.0) for s, v in values[proxy].items() if s in planned or (proxy, s) in searched
            }
            for proxy in self.designs
        }
        self.sizes = {proxy: len(values[proxy]) for proxy in self.designs}
        self.designs = {proxy: designs for proxy, designs in self.designs.items() if self.trainings[proxy]}
        self.trainings = {proxy: self.trainings[proxy] for proxy in self.designs}
        self.spreads = {proxy: self._spread(len(seeds), bool(common)) for proxy, seeds in self.trainings.items()}
        for proxy in self.predicted.keys() & self.spreads.keys():
            self.spreads[proxy] += self.predicted[proxy][2] / self.variance
        self._fits: dict[str, Fit | None] = {}

    def _spread(self, n: int, shifted: bool) -> float:
        """Noise variance of a mean over `n` seeds, in units of one training's own.

        Seeds beyond the first have their shift estimated from the replicated proxies, whose number bounds the gain.
        """
        return 1 / n + (1 - 1 / n) / self.noise.replicated if shifted and n > 1 else 1 / n

    @cached_property
    def coded(self) -> Coded:
        return Coded.of(self.designs)

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Choice -> its options, in a person's order; those with at least two options among complete trials."""
        return {name: options for name, options in self.coded.options.items() if len(options) > 1}

    def counts(self, choice: str) -> dict[str, int]:
        """Option -> distinct trainings (proxy and seed) of designs that take it, replicates included."""
        counts: dict[str, int] = {}
        for proxy, designs in self.designs.items():
            for option in {settings[choice] for settings in designs if choice in settings}:
                counts[option] = counts.get(option, 0) + self.sizes[proxy]
        return counts

    def contrasts(self, choice: str, family: Iterable[Weights]) -> list[Contrast | None]:
        """The sharper estimate of each contrast of `family`; None where the trials hold no evidence on it."""
        family = list(family)
        estimates = zip(self.by_model(choice, family), self.by_pairs(choice, family), strict=True)
        return [
            pairs if model is None or (pairs and pairs.half_width < SHARPER * model.half_width) else model
            for model, pairs in estimates
        ]

    def by_model(self, choice: str, family: Iterable[Weights]) -> list[Contrast | None]:
        if choice not in self._fits:
            self._fits[choice] = self._fit(choice)
        fit = self._fits[choice]
        return [None if fit is None else fit.contrast(weights) for weights in family]

    def _fit(self, choice: str) -> Fit | None:
        x, rows = self._columns(choice)
        return self.fit(x, rows, self.choices[choice])

    def short_of(self, choice: str) -> int:
        """How many more designs the model of `choice` needs; 0 where there are enough."""
        import numpy as np

        x, _ = self._columns(choice)
        return max(0, int(np.linalg.matrix_rank(x)) + MIN_DF - len(x))

    def without(self, choice: str, other: str, option: str) -> Fit | None:
        """The model of a choice over the designs that do not take `option` of another."""
        x, rows = self._columns(choice, ~self.coded.taking(other, option))
        return self.fit(x, rows, self.choices[choice]) if rows else None

    def _columns(self, choice: str, kept: Mask | None = None) -> tuple[Array, list[str]]:
        """The model's matrix, a row for each of the proxies, the options' columns first."""
        import numpy as np

        coded = self.coded
        kept = coded.having(choice) if kept is None else coded.having(choice) & kept
        x = coded.shares(kept, coded.column(choice)[kept], len(coded.options[choice]))
        return np.hstack([x, coded.adjustment(kept, (choice,))]), coded.rows(kept)

    def fit(self, x: Array, proxies: Iterable[str], options: tuple[str, ...]) -> Fit | None:
        """Least squares of the means of these proxies on `x`, a row each, whose first columns are the options'."""
        import numpy as np

        rows = list(proxies)
        y = np.array([math.fsum(self.trainings[p].values()) / len(self.trainings[p]) for p in rows])
        spread = np.array([self.spreads[p] for p in rows])
        return Fit.of(x, y, spread, self.variance, self.own_df, options)

    def by_pairs(self, choice: str, family: Iterable[Weights]) -> list[Contrast | None]:
        """Within contexts (all other choices equal) that hold every option of a contrast at a common seed."""
        import numpy as np

        family = list(family)
        coded = self.coded
        foretold = np.array([proxy in self.predicted for proxy in coded.proxies], dtype=bool)
        contexts = coded.contexts(coded.having(choice) & ~foretold[coded.row], choice)
        found = [self._differences(contexts, weights) for weights in family]
        squares = sum(float(((d - d.mean()) ** 2).sum()) / scale for d, _, scale in found if len(d))
        raw_df = sum(len(d) - 1 for d, _, _ in found if len(d))
        df = raw_df * (len(self.choices[choice]) - 1) / max(len(family), 1)  # contrasts of one choice overlap
        if df < MIN_DF:
            return [None] * len(family)
        contrasts: list[Contrast | None] = []
        for d, noise, scale in found:
            if len(d) < MIN_PAIRS:
                contrasts.append(None)
                continue
            variance = max(squares / raw_df * scale, noise)
            pooled_df = df if variance > noise else df + self.own_df
            contrasts.append(Contrast(float(d.mean()), math.sqrt(variance / len(d)), pooled_df, len(d), "pairs"))
        return contrasts

    def _differences(self, contexts: Iterable[dict[str, str]], weights: Weights) -> tuple[Array, float, float]:
        """One difference a context, their mean noise variance, and the sum of squared weights."""
        import numpy as np

        active = {option: weight for option, weight in weights.items() if weight}
        differences: dict[tuple[str, ...], tuple[float, float]] = {}
        scale = math.fsum(weight**2 for weight in active.values())
        for context in contexts:
            proxies = tuple(context[option] for option in active if option in context)
            if len(proxies) < len(active) or len(set(proxies)) < len(proxies):
                continue
            seeds = set.intersection(*(set(self.trainings[proxy]) for proxy in proxies))
            if seeds:
                terms = [w * self.trainings[p][s] for p, w in zip(proxies, active.values(), strict=True) for s in seeds]
                differences[proxies] = math.fsum(sorted(terms)) / len(seeds), self.variance * scale / len(seeds)
        values = np.array([difference for difference, _ in differences.values()])
        noise = math.fsum(v for _, v in differences.values()) / len(differences) if differences else 0.0
        return values, noise, scale


@dataclass(frozen=True)
class Fit:
    """Weighted least squares; the columns of the options come first."""

    beta: Array
    covariance: Array
    df: float
    gram: Array
    options: tuple[str, ...]
    x: Array

    @classmethod
    def of(cls, x: Array, y: Array, spread: Array, noise: float, noise_df: int, options: tuple[str, ...]) -> Fit | None:
        import numpy as np

        squares, directions = np.linalg.eigh(x.T @ x)  # of few columns, where x has thousands of rows
        kept = squares > squares[-1] * SINGULAR
        df = len(y) - int(kept.sum())
        if df < MIN_DF:
            return None
        hat = x @ (directions[:, kept] / np.sqrt(squares[kept]))
        residual = y - hat @ (hat.T @ y)
        free = 1 - (hat**2).sum(1)
        extra = (float(residual @ residual) - noise * float(free @ spread)) / df
        known = noise > 0
        weights = 1 / (max(extra, 0.0) + noise * spread) if known else np.ones(len(y))
        gram: Array = x.T @ (weights[:, None] * x)
        inverse = np.linalg.pinv(gram, rcond=SINGULAR, hermitian=True)
        beta = inverse @ (x.T @ (weights * y))
        lack = float(weights @ (y - x @ beta) ** 2) / df
        if known and extra <= 0:
            df += noise_df
        covariance = np.asarray(inverse * (max(lack, 1.0) if known else lack), dtype=np.float64)
        return cls(beta, covariance, df, gram @ inverse, options, x)

    def contrast(self, weights: Weights) -> Contrast | None:
        """None where the trials cannot tell the options apart whatever their values."""
        import numpy as np

        c = np.zeros(len(self.beta))
        for option, weight in weights.items():
            c[self.options.index(option)] = weight
        if np.abs(self.gram @ c - c).max() > 1e-6:
            return None
        active = [self.options.index(option) for option, weight in weights.items() if weight]
        n = int((self.x[:, active] > 0).any(1).sum())
        error = math.sqrt(max(float(c @ self.covariance @ c), 0.0))
        return Contrast(float(c @ self.beta), error, self.df, n, "model")


def holm(p_values: list[float]) -> list[float]:
    """Holm's adjusted p-values: below 5% they are claims that are jointly right 19 times in 20."""
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted
