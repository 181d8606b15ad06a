"""Runs beside each other: their fronts against one reference, and how alike they order the designs they share.

A design is the same in two runs with one target where it is one model there, else where its choices are the same; its
trained models may differ (another proxy scale) and so may what was spent on it. Agreement is over designs that both
trained to the end, on the means over their seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from hybrid_nas.architecture import canonical_json
from hybrid_nas.candidate import Candidate
from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.rank import Correlation, kendall, spearman
from hybrid_nas.trial import Trial
from hybrid_nas.units import label, listed


@dataclass(frozen=True)
class Side:
    """One run: `share` of the common box is dominated by its front; `trained` designs reached the end, in `trainings`
    that differ in design or seed; `tokens` were trained, `budget` for one design; `seconds` of training, summed over
    workers; `data` names the text; `others` are its objectives that not every run has, and `alone` the members that its
    front has with them."""

    name: str
    target: str
    front: Front
    share: float
    trained: int
    trainings: int
    tokens: int
    budget: int
    seconds: float
    data: str = ""
    others: tuple[str, ...] = ()
    alone: int = 0


@dataclass(frozen=True)
class Agreement:
    """How two runs order the designs they share in one quantity. `kendall` is None below two of them. `shared` is how
    many both trained to the end; those of them that are one trained model on both sides count once in `n`."""

    first: str
    second: str
    quantity: str
    kendall: Correlation | None
    spearman: Correlation | None
    best_in_common: tuple[int, int] | None  # of the best quarter of either, how many are in both; how many that is
    pairs: tuple[tuple[Candidate, Candidate], ...]
    shared: int = 0

    @property
    def n(self) -> int:
        return len(self.pairs)


@dataclass(frozen=True)
class Comparison:
    objectives: tuple[Objective, ...]
    sides: tuple[Side, ...]
    agreements: tuple[Agreement, ...]

    @classmethod
    def of(
        cls, runs: Sequence[tuple[str, str, list[Trial], Sequence[Objective]]], data: Mapping[str, str] | None = None
    ) -> Comparison:
        """`runs`: name, name of the target, trials, objectives; `data`: what a run's text is. ValueError where their
        objectives have nothing in common, or a run has no complete trial."""
        names = [[objective.name for objective in objectives] for _, _, _, objectives in runs]
        common = tuple(o for o in runs[0][3] if all(o.name in other for other in names))
        if not common:
            told = "; ".join(f"{run[0]}: {', '.join(own)}" for run, own in zip(runs, names, strict=True))
            raise ValueError(f"compare: the runs share no objective ({told})")
        fronts = []
        for name, _, trials, _ in runs:
            front = Front.of(trials, common)
            if not front.candidates:
                raise ValueError(f"compare: {name} has no trial that was trained to the end")
            fronts.append(front)
        reference = {o.name: max((front.reference[o.name] for front in fronts), key=o.loss) for o in common}
        ideal = {o.name: min((front.ideal[o.name] for front in fronts), key=o.loss) for o in common}
        sides = []
        for (name, target, trials, own_objectives), front in zip(runs, fronts, strict=True):
            own = replace(front, reference=reference, ideal=ideal)
            sides.append(
                Side(
                    name=name,
                    target=target,
                    front=own,
                    share=_share(own),
                    trained=front.counts["designs"],
                    trainings=front.counts["trainings"],
                    tokens=sum(trial.tokens for trial in trials),
                    budget=trials[0].budget.tokens,
                    seconds=sum(trial.seconds for trial in trials),
                    data=(data or {}).get(name, ""),
                    alone=len(Front.of(trials, own_objectives, draws=0).members),
                    others=tuple(o.name for o in own_objectives if o not in common),
                )
            )
        quantities = [
            name for name, quantity in QUANTITIES.items()
            if quantity.trained and all(any(name in c.estimates for c in side.front.candidates) for side in sides)
        ]  # fmt: skip
        agreements = [_agreement(one, two, quantity) for one, two in combinations(sides, 2) for quantity in quantities]
        return cls(common, tuple(sides), tuple(agreements))

    @property
    def basis(self) -> str:
        """What is compared, and what the columns mean."""
        others = [f"{side.name} also {listed(map(label, side.others))}" for side in self.sides if side.others]
        box = self.sides[0].front.box
        logarithmic = [label(o.name) for o in self.objectives if box.logarithmic(o)]
        scale = f", {listed(logarithmic)} on a log scale" if logarithmic else ""
        return (
            f"Compared on {listed(label(o.name) for o in self.objectives)}, the objectives that all have"
            + (f" ({'; '.join(others)}: left out)" if others else "")
            + ". Dominated: of the box from the best values that any run found to a tenth beyond the worst"
            + f"{scale}, the share that a run's front beats. Training time is summed over workers."
            + "".join(f" {origin}." for origin in self.origins if len(self.origins) == 1)
        )

    @property
    def cut(self) -> str:
        """Which fronts are short of an objective here; empty where none is."""
        return "; ".join(
            f"{listed(map(label, side.others))} of {side.name} {'is' if len(side.others) == 1 else 'are'} left out, "
            f"with which its front has {side.alone} members in place of {len(side.front.members)}"
            for side in self.sides
            if side.others
        )

    @property
    def one_text(self) -> bool:
        """Whether all were trained on one text, so that their losses are of the same thing."""
        named = {side.data.partition(" (")[0] for side in self.sides}
        sized = {
            side.data for side in self.sides if " (" in side.data
        }  # with its size and hash, where that is recorded
        return len(named) == 1 and len(sized) <= 1

    @property
    def unlike(self) -> tuple[str, ...]:
        """What stands in the way of reading the runs against each other."""
        told = []
        if not self.one_text:
            texts = "; ".join(f"{side.name}: {side.data or 'unknown'}" for side in self.sides)
            told.append(
                f"The runs were trained on different text ({texts}): their losses are not of the same thing, and no "
                "difference between them is one of designs. Only how each orders the designs that both trained can be "
                "compared."
            )
        if not self.one_target:
            told.append("The runs have different targets: their costs are not of the same models.")
        if len({side.budget for side in self.sides}) > 1:
            told.append("The runs spend different budgets on a design: a lower loss may be the longer training.")
        if len(self.origins) > 1:
            found = "; ".join(
                f"{listed(names)}: {origin[:1].lower()}{origin[1:]}" for origin, names in self.origins.items()
            )
            told.append(
                f"The runs' speeds are not of one kind ({found}): no difference between them is one of designs, nor is "
                "a share of the box that is dominated."
            )
        return tuple(told)

    @property
    def origins(self) -> dict[str, list[str]]:
        """Where speeds among the objectives come from, and the runs whose they are; empty without such objectives."""
        found: dict[str, list[str]] = {}
        for side in self.sides:
            for origin in side.front.origins:
                found.setdefault(origin.removesuffix("."), []).append(side.name)
        return found

    @property
    def one_target(self) -> bool:
        """Whether costs are at the same scale, so that fronts can be read against each other."""
        return len({side.target for side in self.sides}) == 1

    def to_dict(self) -> dict[str, Any]:
        return {
            "objectives": [objective.name for objective in self.objectives],
            "one_target": self.one_target,
            "one_text": self.one_text,
            "unlike": list(self.unlike),
            "origins": self.origins,
            "basis": self.basis,
            "runs": [
                {
                    "name": side.name,
                    "target": side.target,
                    "hypervolume_share": side.share,
                    "members": [member.to_dict() for member in side.front.members],
                    "data": side.data,
                    "designs": side.trained,
                    "trainings": side.trainings,
                    "tokens": side.tokens,
                    "budget_tokens": side.budget,
                    "seconds": side.seconds,
                }
                for side in self.sides
            ],
            "agreement": [
                {
                    "first": one.first,
                    "second": one.second,
                    "quantity": one.quantity,
                    "n": one.n,
                    "shared": one.shared,
                    "kendall": one.kendall and one.kendall.to_dict(),
                    "spearman": one.spearman and one.spearman.to_dict(),
                    "best_quarter_in_common": one.best_in_common,
                }
                for one in self.agreements
            ],
        }


def _share(front: Front) -> float:
    import numpy as np

    return front.box.share(np.array([[c.value(o.name) for o in front.objectives] for c in front.members]))


def _agreement(one: Side, two: Side, quantity: str) -> Agreement:
    def key(candidate: Candidate) -> str:
        return candidate.key.partition("-")[2] if one.target == two.target else canonical_json(candidate.design)

    mine, theirs = (
        {key(c): c for c in reversed(side.front.candidates) if quantity in c.estimates} for side in (one, two)
    )
    both_have = [(mine[model], theirs[model]) for model in reversed(mine) if model in theirs]
    pairs = _told_apart(both_have)
    x, y = ([pair[i].estimates[quantity].mean for pair in pairs] for i in (0, 1))
    best = None
    quarter = len(pairs) // 4
    if quarter:
        sign = -1 if QUANTITIES[quantity].direction == "maximize" else 1
        tops = [set(sorted(range(len(pairs)), key=lambda i: sign * side[i])[:quarter]) for side in (x, y)]
        best = len(tops[0] & tops[1]), quarter
    both = kendall(x, y), spearman(x, y)
    return Agreement(one.name, two.name, quantity, *both, best, tuple(pairs), len(both_have))


def _told_apart(pairs: list[tuple[Candidate, Candidate]]) -> list[tuple[Candidate, Candidate]]:
    """One pair for designs that are one trained model on both sides: they would agree by being the same number."""
    kept: dict[tuple[str, str], tuple[Candidate, Candidate]] = {}
    for one, two in pairs:
        kept.setdefault((one.key.partition("-")[0], two.key.partition("-")[0]), (one, two))
    return list(kept.values())
