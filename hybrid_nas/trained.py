"""A design's trainings at all scales, as points of a law in size and tokens. A design is one model at the target."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from hybrid_nas.cost import params_nonembedding
from hybrid_nas.design import Design
from hybrid_nas.extrapolation import Measured, varied
from hybrid_nas.trial import Trial
from hybrid_nas.units import listed

AXES = {"params": "size", "tokens": "number of tokens"}


@dataclass(frozen=True)
class Trained:
    """One design's trainings: `id` and `params` are its model's at the target, `unused` says which were no use."""

    id: str
    layout: str
    design: Design
    params: int
    points: tuple[Measured, ...]
    trainings: int
    unused: str

    def varied(self) -> set[str]:
        return {name for name in AXES if varied(self.points, name)}

    def range(self, name: str) -> list[float]:
        return sorted({float(getattr(point, name)) for point in self.points})


def trained(trials: Iterable[Trial], marks: bool = False) -> list[Trained]:
    """Every design of `trials`, those of no use too. A training that two trials share counts once.
    ValueError names a trial whose loss or tokens are no numbers above 0."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.target.id, []).append(trial)
    designs = []
    for key, rows in found.items():
        points: dict[tuple[str, int, int], list[Measured]] = {}
        unused: Counter[str] = Counter()
        for trial in rows:
            if trial.state == "complete" and trial.values.get("loss") is not None:
                try:
                    points.setdefault((trial.proxy.id, _tokens(trial), trial.seed), _points(trial, marks))
                except ValueError as error:
                    raise ValueError(f"trial {trial.number} ({trial.proxy.layout}): {error}") from None
            else:
                unused["without a loss on text" if trial.state == "complete" else trial.state] += 1
        said = listed(f"{n} {what}" for what, n in sorted(unused.items())) if unused else ""
        of, every = rows[0], tuple(itertools.chain.from_iterable(points.values()))
        params = params_nonembedding(of.target)
        designs.append(Trained(key, of.layout, of.design, params, every, len(points), said))
    return designs


def _tokens(trial: Trial) -> int:
    """A trial that shares another's training has none of its own, but the curve."""
    return trial.tokens or max((point.tokens for point in trial.curve), default=0)


def _points(trial: Trial, marks: bool) -> list[Measured]:
    params, tokens, budget = params_nonembedding(trial.proxy), _tokens(trial), trial.budget
    if not marks:
        return [Measured(params, tokens, trial.values["loss"])]
    full = [rung for rung in budget.rungs if budget.warmup <= rung <= 1 - budget.cooldown + 1e-9]
    return [
        Measured(params, point.tokens, point.loss)
        for point in trial.curve
        if point.validation
        and point.tokens < tokens
        and min(budget.rungs, key=lambda rung: abs(rung - point.tokens / tokens), default=None) in full
    ]
