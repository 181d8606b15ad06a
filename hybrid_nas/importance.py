"""Optuna's importance of each choice for a trained quantity (PED-ANOVA): a share of what the choices move, no sign.

It says which choices matter for the best designs, at a glance; effects with intervals are `hybrid_nas.effects`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from hybrid_nas.choices import settings_of
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.trial import Trial

MIN_TRIALS = 8


def importances(trials: Iterable[Trial], quantity: str) -> dict[str, float]:
    """Choice -> share, adding up to 1; empty where fewer than eight complete search trials have a value."""
    import optuna
    from optuna.distributions import CategoricalDistribution

    rows = [
        (settings_of(trial.design), trial.values[quantity])
        for trial in trials
        if trial.state == "complete" and trial.replicate_of is None and quantity in trial.values
    ]
    options: dict[str, set[str]] = {}
    for settings, _ in rows:
        for name, option in settings.items():
            options.setdefault(name, set()).add(option)
    options = {name: found for name, found in options.items() if len(found) > 1}
    if len(rows) < MIN_TRIALS or not options or len({value for _, value in rows}) < 2:
        return {}
    known = quantity in QUANTITIES
    direction = QUANTITIES[quantity].direction if known else "minimize"
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction=direction)
        spaces = {name: CategoricalDistribution(sorted(found)) for name, found in options.items()}
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={name: option for name, option in settings.items() if name in spaces},
                    distributions={name: spaces[name] for name in settings if name in spaces},
                    value=value,
                )
                for settings, value in rows
            ]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few trials in a regime: the report says how many there are
            found = optuna.importance.get_param_importances(study)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {name: float(share) for name, share in found.items()}
