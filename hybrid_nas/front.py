"""The Front: designs that no other design beats, how sure that is, its hypervolume, knee and ends.

Reads trials alone, so it is the same from a running study, a finished one or a Parquet file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybrid_nas.accuracy import LEVELS, level
from hybrid_nas.box import Box
from hybrid_nas.candidate import Candidate, candidates_of
from hybrid_nas.noise import Noise, Trainings, bounded, proxy_id, trained_quantities, trainings
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.redraw import redraw
from hybrid_nas.speed import SPEEDS
from hybrid_nas.trial import Trial
from hybrid_nas.units import label

DRAWS = 1000
LARGEST = 1e30
MARGIN = 0.1  # of each objective's range, beyond its worst value: where the reference point lies
KNEE = (
    "each objective is scaled to 0 (best on the front) and 1 (worst on the front); the knee lies farthest, towards "
    "the ideal point, from the plane through the corners that are best in one objective and worst in the others, "
    "which for two objectives is the line between the two ends"
)
LEVELLED = (
    " An accuracy's deviation depends on its level, so it is taken of the log odds and pooled below 0.1, from 0.1 to "
    "0.9 and above 0.9 apart."
)


@dataclass(frozen=True)
class Front:
    """The front of a study. `candidates` holds every design with a complete trial, in order of first trial number.

    Two designs that are equal in every objective are both members. `hypervolume` is the share of the box from `ideal`
    (best value of each objective over all candidates) to `reference` (worst value, and a tenth of the range beyond)
    that the members dominate, costs of more than a decade by their logarithm (`box.py`). `knee` and `ends` are keys of
    members; `knee_probability` counts how often the same design is the knee when the noise is drawn again.
    """

    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...]
    noise: dict[str, Noise]
    hypervolume: float
    ideal: dict[str, float]
    reference: dict[str, float]
    knee: str | None
    knee_is_end: bool
    knee_probability: float | None
    ends: dict[str, str]
    draws: int
    counts: dict[str, int]
    mode: str = ""
    origins: tuple[str, ...] = ()
    """Where speeds among the objectives come from, a sentence each."""
    idle: tuple[str, ...] = ()
    """Accuracies among the objectives that no design has learned: they make members, and none of them sure."""

    @classmethod
    def of(
        cls,
        trials: Iterable[Trial],
        objectives: Sequence[Objective],
        reference: dict[str, float] | None = None,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> Front:
        """The front of `trials`; those stopped or failed are counted and never candidates.

        `reference` fixes the hypervolume's reference point (raw values by objective name) so that studies compare.
        `draws` is the number of times the noise is drawn to find the probability of membership, from `seed`.
        ValueError for a complete trial without a finite value of an objective, and for trials of different budgets.
        """
        import numpy as np

        from hybrid_nas.dominance import knee, non_dominated

        ordered = sorted(trials, key=lambda trial: trial.number)
        objectives = tuple(objectives)
        if not objectives:
            raise ValueError("front: at least one objective is needed, found none")
        complete = [trial for trial in ordered if trial.state == "complete"]
        _check(complete, objectives)
        values = {name: trainings(complete, name) for name in trained_quantities(complete)}
        noise = {name: Noise.of(name, table) for name, table in values.items()}
        candidates = candidates_of(complete, values, noise)
        counts = {
            "trials": len(ordered),
            **{state: sum(t.state == state for t in ordered) for state in ("complete", "stopped", "failed")},
            "replicates": sum(t.replicate_of is not None for t in complete),
            "designs": len(candidates),
            "trainings": len({(proxy_id(t), t.seed) for t in complete}),
        }
        if not candidates:
            return cls(objectives, (), noise, 0.0, {}, {}, None, False, None, {}, 0, counts)
        points = np.array([[o.loss(c.value(o.name)) for o in objectives] for c in candidates])
        on_front = non_dominated(points)
        idle = _idle(objectives, candidates, values)
        told = [j for j, o in enumerate(objectives) if o.name not in idle]
        if not any(objectives[j].trained for j in told):
            told = list(range(len(objectives)))
        chance, knees, drawn = redraw(
            points[:, told], candidates, tuple(objectives[j] for j in told), values, noise, draws, seed
        )
        candidates = [
            replace(c, member=bool(on_front[i]), probability=None if chance is None else float(chance[i]))
            for i, c in enumerate(candidates)
        ]
        members = np.flatnonzero(on_front)
        best, lead = knee(points[members])
        at_knee = int(members[best])
        ends = {
            o.name: int(members[np.lexsort((*points[members].T[::-1], points[members, j]))[0]])
            for j, o in enumerate(objectives)
            if o.name not in idle
        }
        names, sign = [o.name for o in objectives], np.array([o.loss(1.0) for o in objectives])
        ideal, worst = points.min(0), points.max(0)
        corner = worst + MARGIN * np.where(worst > ideal, worst - ideal, 1.0)
        if reference is not None:
            corner = np.array([o.loss(reference[o.name]) for o in objectives])
        box = Box(
            objectives,
            *(dict(zip(names, map(float, row), strict=True)) for row in (sign * ideal + 0.0, sign * corner + 0.0)),
        )
        return cls(
            objectives=objectives,
            candidates=tuple(candidates),
            noise=noise,
            hypervolume=box.share(sign * points[members]),
            ideal=box.ideal,
            reference=box.reference,
            knee=candidates[at_knee].key,
            knee_is_end=lead <= 1e-12,
            knee_probability=None if knees is None else float(knees[at_knee]),
            ends={name: candidates[i].key for name, i in ends.items()},
            draws=drawn,
            counts=counts,
            mode=complete[0].budget.mode,
            origins=_origins(complete, objectives),
            idle=idle,
        )

    @property
    def _how(self) -> str:
        return " ".join((self.mode, *self.origins))

    @property
    def members(self) -> tuple[Candidate, ...]:
        """The designs of the front, best first in the first objective."""
        first = self.objectives[0]
        return tuple(
            sorted((c for c in self.candidates if c.member), key=lambda c: (first.loss(c.value(first.name)), c.number))
        )

    @property
    def close(self) -> tuple[Candidate, ...]:
        """Designs off the front by no more than the noise: their probability of belonging to it is 5% or more."""
        return tuple(c for c in self.candidates if not c.member and c.sure is False)

    @property
    def box(self) -> Box:
        return Box(self.objectives, self.ideal, self.reference)

    def candidate(self, key: str) -> Candidate:
        return next(c for c in self.candidates if c.key == key)

    @property
    def measured_noise(self) -> bool:
        """Whether every trained objective has a noise measured from replicates."""
        return all(o.name in self.noise and self.noise[o.name].sd is not None for o in self.objectives if o.trained)

    @property
    def statement(self) -> str:
        """What all designs had in common, and what the intervals mean, or why there are none."""
        if not self.candidates:
            return "No trial is complete: there is no front."
        return " ".join(filter(None, (self._certainty, self.unlearned)))

    @property
    def unlearned(self) -> str:
        """What is no more than guessing in any design, and what that makes of members that are there for it."""
        told = []
        for name in self.idle:
            best = max(c.value(name) for c in self.candidates)
            told.append(
                f"None of these designs has learned {name}: the best is {best:.3f}, and below {LEVELS[0]:g} is no more "
                "than guessing. Designs that are on the front for it alone are not there for something they do, so "
                "how sure a place is, is told by the other objectives."
                + (f" Chance is {chance:.3f}." if (chance := QUANTITIES[name].chance) is not None else "")
            )
        return " ".join(told)

    @property
    def _certainty(self) -> str:
        if not self.measured_noise:
            return (
                f"{self._how} No design was trained at more than one seed, so the noise is unknown: no intervals, and "
                "the order of designs that lie close together is not known to be real."
            )
        return (
            f"{self._how} Intervals are 95%, Student's t, from the deviation over seeds, pooled over all replicated "
            "designs; a design trained at one seed is given the same deviation."
            + (LEVELLED if any(noise.levels is not None for noise in self.noise.values()) else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """front.json:

        - `objectives`: name, direction, unit, trained
        - `origins`: where speeds among the objectives come from, a sentence each
        - `counts`: trials by state; `designs` (distinct), `replicates`, `trainings` (distinct proxy and seed)
        - `noise`, by trained quantity: `sd` over seeds and its `df`; `own_sd`, `own_df` with the seeds' common effect
          taken out; `floor` and `same_seed_floor`, the smallest difference that two single-seed trials show at 95%; of
          an accuracy `levels` in their place
        - `statement`: whether designs had equal data or equal compute, and what the intervals mean
        - `hypervolume`: `value` (share of the box), `ideal` and `reference` (its corners), `logarithmic` (objectives)
        - `knee`: `key`, `definition`, `is_end` (no member beats the line between the ends), `probability`
        - `ends`: objective name -> key of the member best in it; none of the `idle`, accuracies that no design learned
        - `members`, best first in the first objective, and `close` (off the front by no more than the noise): each
          with `key`, `number`, `trials`, `layout`, `proxy_layout`, `design`, `values` (quantity -> mean, low, high, n),
          `cost` at the target, `seeds`, `devices`, `implementations`, `coincides_with` (designs that are one model
          with it at the proxy scale), `probability` of being on the front, `sure`
        """
        return {
            "version": 1,
            "origins": list(self.origins),
            "objectives": [
                {"name": o.name, "direction": o.direction, "unit": o.unit, "trained": o.trained}
                for o in self.objectives
            ],
            "counts": self.counts,
            "noise": {name: noise.to_dict() for name, noise in self.noise.items()},
            "statement": self.statement,
            "hypervolume": {
                "value": self.hypervolume,
                "ideal": self.ideal,
                "reference": self.reference,
                "logarithmic": [o.name for o in self.objectives if self.candidates and self.box.logarithmic(o)],
            },
            "knee": {
                "key": self.knee,
                "definition": KNEE,
                "is_end": self.knee_is_end,
                "probability": self.knee_probability,
            },
            "ends": self.ends,
            "idle": list(self.idle),
            "draws": self.draws,
            "members": [candidate.to_dict() for candidate in self.members],
            "close": [candidate.to_dict() for candidate in self.close],
        }


def _idle(
    objectives: tuple[Objective, ...], candidates: list[Candidate], values: dict[str, Trainings]
) -> tuple[str, ...]:
    accuracies = [o.name for o in objectives if o.name in values and bounded(o.name, values[o.name])]
    return tuple(name for name in accuracies if all(level(c.value(name)) == 0 for c in candidates))


def _origins(complete: list[Trial], objectives: tuple[Objective, ...]) -> tuple[str, ...]:
    """ValueError where trials differ in where their speeds come from."""
    names = [o.name for o in objectives if o.name in SPEEDS]
    origins: dict[str, int] = {}
    for trial in complete if names else ():
        if trial.cost.speed is not None:
            origins.setdefault(trial.cost.speed.origin_of(names), trial.number)
    if len(origins) > 1:
        one, other = ((number, origin) for origin, number in list(origins.items())[:2])
        raise ValueError(
            f"speeds of trial {one[0]} are {one[1]}, and of trial {other[0]} {other[1]}; a front compares one kind"
        )
    return tuple(f"{' and '.join(label(name) for name in names).capitalize()}: {origin}." for origin in origins)


def _spent(trial: Trial) -> dict[str, float | None]:
    """What trials on one front must share."""
    budget = trial.budget
    amount = {"tokens": budget.tokens} if budget.flops is None else {"flops": budget.flops}
    kept = {name: getattr(budget, name) for name in ("batch", "learning_rate", "recall_share")}
    return {**amount, **kept}


def _check(complete: list[Trial], objectives: tuple[Objective, ...]) -> None:
    names = [objective.name for objective in objectives]
    if len(set(names)) < len(names):
        raise ValueError(f"front: each objective may be named once, found {names}")
    for trial in complete:
        for name in names:
            value = trial.value(name)
            if value is None:
                raise ValueError(f"trial {trial.number}: complete, but without a value of the objective {name}")
            if not abs(value) < LARGEST:
                raise ValueError(f"trial {trial.number}: {name} must be a finite number below 1e30, found {value}")
    spent = {tuple(_spent(t).items()): t for t in complete}
    if len(spent) > 1:
        one, other = list(spent.values())[:2]
        a, b = _spent(one), _spent(other)
        differ = [f"{name} {a.get(name)} and {b.get(name)}" for name in {**a, **b} if a.get(name) != b.get(name)]
        raise ValueError(
            f"trials {one.number} and {other.number} were trained with different budgets ({', '.join(differ)}); "
            "a front compares equal budgets"
        )
