"""One score out of several: of each design of a table over its tasks, probes and text.

`mean` is the mean share of right guesses over tasks and probes, and needs one design alone. `rank` and `z-score` say
how a design stands among the others of its seed: each quantity, the loss on text among them, is turned into ranks (from
0, the worst, to 1) or z-scores so that more is better, and these are averaged. They need the table, so a search cannot
ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hybrid_nas.tasks import OF_TEXT, base, value_name
from hybrid_nas.trial import Trial

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def quantities(trial: Trial) -> dict[str, float]:
    """What is aggregated of a trial, more is better: shares of right guesses, and the losses on text turned round."""
    names = (*trial.budget.tasks, *trial.budget.probes)
    found = {value_name(name, names): 1.0 for name in names if base(name) not in OF_TEXT}
    losses = ("loss", *(value_name(name, names) for name in names if base(name) in OF_TEXT))
    found |= {name: -1.0 for name in losses if name in trial.values}
    return {name: sign * trial.values[name] for name, sign in found.items()}


def scored(trials: Sequence[Trial]) -> list[Trial]:
    """`trials` with `score` by the `aggregate` of their budget, among the complete ones of each seed."""
    import numpy as np

    ways: dict[str, Callable[[Array], Array]] = {"rank": _ranks, "z-score": _z}
    found = list(trials)
    for seed in {trial.seed for trial in trials}:
        places = [
            i for i, t in enumerate(trials) if t.seed == seed and t.state == "complete" and t.budget.aggregate in ways
        ]
        if not places:
            continue
        rows = [quantities(trials[i]) for i in places]
        names = sorted(set.intersection(*(set(row) for row in rows)))
        if not names:
            continue
        way = ways[trials[places[0]].budget.aggregate]
        total = np.mean([way(np.array([row[name] for row in rows])) for name in names], axis=0)
        for i, score in zip(places, total, strict=True):
            found[i] = trials[i].with_changes(values={**trials[i].values, "score": float(score)})
    return found


def _ranks(values: Array) -> Array:
    """From 0 to 1, ties sharing their mean rank.

    >>> import numpy as np
    >>> _ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [0.75, 0.0, 0.75]
    """
    import numpy as np

    below = (values[:, None] > values).sum(1) + 0.5 * ((values[:, None] == values).sum(1) - 1)
    ranks: Array = below / max(1, len(values) - 1)
    return np.asarray(ranks, dtype=np.float64)


def _z(values: Array) -> Array:
    spread = float(values.std())
    z: Array = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return z
