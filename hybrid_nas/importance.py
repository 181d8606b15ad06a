"""Optuna's importance of each choice for a trained quantity (PED-ANOVA): what sets the best designs apart, without a
sign, and what it comes to by chance.

It looks at the best designs alone and adjusts for nothing, so it is a first glance; effects with intervals are
`hybrid_nas.effects`. Shares add up to 1 even where nothing matters: the shares of shuffled values say what is noise.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

from hybrid_nas.choices import merged
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.trial import Trial

BEST = 5  # designs among the best, at least: fewer make the importance of a choice an accident
MIN_TRIALS = 2 * BEST
QUANTILE = 0.1
SHUFFLES = 100  # of 100 designs; fewer of more, whose chance is less, down to 33
LOOKED_AT = 300  # designs, evenly over the search; more would not change what is beyond chance


@dataclass(frozen=True)
class Importance:
    """`share` of what sets the `best` of `n` designs apart; `chance` is what 1 of 20 shuffles reaches or exceeds."""

    share: float
    chance: float
    best: int
    n: int

    @property
    def shown(self) -> bool:
        """Whether it is beyond chance."""
        return self.share > self.chance


def importances(trials: Iterable[Trial], quantity: str) -> dict[str, Importance]:
    """By choice, for search trials that are complete; empty where fewer than ten have a value."""
    import numpy as np
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    trials = list(trials)
    settings_of = merged(trials)
    told = [t for t in trials if t.state == "complete" and t.replicate_of is None and quantity in t.values]
    told = told[:: -(-len(told) // LOOKED_AT) or 1]
    rows = [settings_of(trial) for trial in told]
    sign = -1.0 if quantity in QUANTITIES and QUANTITIES[quantity].direction == "maximize" else 1.0
    values = np.array([sign * trial.values[quantity] for trial in told])
    options: dict[str, set[str]] = {}
    for settings in rows:
        for name, option in settings.items():
            options.setdefault(name, set()).add(option)
    spaces = {name: CategoricalDistribution(sorted(found)) for name, found in options.items() if len(found) > 1}
    if len(rows) < MIN_TRIALS or not spaces or len(set(values)) < 2:
        return {}
    quantile = max(QUANTILE, BEST / len(rows))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study()
        for settings in rows:
            params = {name: option for name, option in settings.items() if name in spaces}
            distributions: dict[str, BaseDistribution] = {name: spaces[name] for name in params}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=0.0))

        def shares(row: np.ndarray) -> dict[str, float]:
            found = get_param_importances(study, evaluator=evaluator, target=lambda trial: float(row[trial.number]))
            return {name: found.get(name, 0.0) for name in spaces}

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few trials in a regime: `chance` says what that does
            real = shares(values)
            rng = np.random.default_rng(0)
            shuffled = [shares(rng.permutation(values)) for _ in range(min(SHUFFLES, 100 * SHUFFLES // len(rows)))]
    finally:
        optuna.logging.set_verbosity(verbosity)
    best = round(quantile * len(rows))
    return {
        name: Importance(share, float(np.quantile([one[name] for one in shuffled], 0.95)), best, len(rows))
        for name, share in real.items()
    }
