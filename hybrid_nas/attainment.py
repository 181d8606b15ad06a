"""How the answer grew: how much of what the front dominates at the end was dominated already, over what was spent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hybrid_nas.front import Front
from hybrid_nas.trial import Trial

STEPS = 80  # points of the curve; the hypervolume of many objectives is slow


@dataclass(frozen=True)
class Step:
    """After search trial `number`: tokens and seconds trained so far, summed over workers, and the share of the final
    hypervolume that was there. `member`: the trial brought a design that is on the front at the end."""

    number: int
    tokens: int
    seconds: float
    share: float
    member: bool


def attainment(trials: Iterable[Trial], front: Front) -> tuple[Step, ...]:
    """One step a search trial, thinned to about `STEPS`; the last is 1.

    A design counts from its first complete trial on, with the values it has at the end, so that the curve shows what
    was found and not what replicates corrected. Nothing where the front is empty.
    """
    import numpy as np

    from hybrid_nas.dominance import hypervolume, non_dominated

    if not front.candidates:
        return ()
    objectives = front.objectives
    scaled = front.box.scaled(np.array([[c.value(o.name) for o in objectives] for c in front.candidates]))
    points = {c.number: row for c, row in zip(front.candidates, scaled, strict=True)}
    corner = np.ones(len(objectives))
    members = {c.number for c in front.members}
    search = sorted((t for t in trials if t.replicate_of is None), key=lambda trial: trial.number)
    every = max(1, len(search) // STEPS)
    known: list[np.ndarray] = []
    tokens, seconds, share, changed = 0, 0.0, 0.0, False
    steps = []
    for i, trial in enumerate(search):
        tokens, seconds = tokens + trial.tokens, seconds + trial.seconds
        if trial.number in points:
            known.append(points[trial.number])
            changed = True
        if i % every and i < len(search) - 1 and trial.number not in members:
            continue
        if changed and front.hypervolume > 0:
            rows = np.array(known)
            rows = rows[non_dominated(rows)]
            known, changed = list(rows), False
            share = hypervolume(rows, corner) / front.hypervolume
        steps.append(Step(trial.number, tokens, seconds, share, trial.number in members))
    return tuple(steps)
