"""The Recipe: what the front and all trials say about each choice, as rules with their evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hybrid_nas.agreement import Finding, agreement
from hybrid_nas.candidate import SURE, Candidate
from hybrid_nas.effects import Effects
from hybrid_nas.evidence import Evidence
from hybrid_nas.front import Front
from hybrid_nas.interactions import Interaction, interactions
from hybrid_nas.noise import Noise, trained_quantities, trainings
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.positions import PositionMap, position_maps
from hybrid_nas.predicted import QUANTITY, Predictions, predicted
from hybrid_nas.student import student
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, label, readable

METHOD = (
    "Effects come from a main-effects model over all complete trials to which a choice applies, adjusted for the other "
    "choices, or from paired differences at one seed between designs that differ in that choice alone, whichever is "
    "clearly sharper. Intervals are 95%, each for itself; the residual variance is never taken below the noise between "
    "seeds. A claim is made where Holm's correction over all pairs of options of the choice holds at 5% and each "
    "option has at least 3 trainings; everything else is undecided. Trials stopped early have no final value; where "
    "their held-out losses do not foretell it they are left out, which understates how bad the options are that were "
    "stopped most."
)


@dataclass(frozen=True)
class Rule:
    """One choice: the evidence in each trained quantity, and where quantities disagree."""

    choice: str
    evidence: tuple[Evidence, ...]
    contradictions: tuple[str, ...]

    @property
    def worth(self) -> tuple[float, ...]:
        return tuple(e.worth for e in self.evidence)

    @property
    def decided(self) -> bool:
        return any(e.decided for e in self.evidence)

    def to_dict(self) -> dict[str, Any]:
        return {
            "choice": self.choice,
            "decided": self.decided,
            "evidence": {e.quantity: e.to_dict() for e in self.evidence},
            "contradictions": list(self.contradictions),
        }


@dataclass(frozen=True)
class Price:
    """What the cheaper of two designs gives up in `quantity` (`loss` is 0 or more where it is worse), and its gain."""

    quantity: str
    cheaper: int
    better: int
    difference: float
    low: float | None
    high: float | None
    cost: str
    cheaper_cost: float
    better_cost: float

    @property
    def sentence(self) -> str:
        unit = QUANTITIES[self.quantity].unit if self.quantity in QUANTITIES else ""
        interval = (
            "" if self.low is None or self.high is None else f" [{bare(self.low, unit)}, {bare(self.high, unit)}]"
        )
        open_ = self.low is None or self.low <= 0
        verdict = "; the noise does not rule out that it loses nothing" if open_ and interval else ""
        cost_unit = QUANTITIES[self.cost].unit
        return (
            f"gives up {readable(self.difference, unit)}{interval} of {self.quantity} for "
            f"{readable(self.cheaper_cost, cost_unit)} of {label(self.cost)} in place of "
            f"{readable(self.better_cost, cost_unit)}{verdict}"
        )


@dataclass(frozen=True)
class Recipe:
    """`named` are the designs to look at: the knee and the best in each objective. Rules come most worth first."""

    headline: str
    named: dict[str, Candidate]
    rules: tuple[Rule, ...]
    prices: dict[str, Price]
    statement: str
    quantities: tuple[str, ...]
    interactions: tuple[Interaction, ...]
    positions: tuple[PositionMap, ...]
    agreement: tuple[Finding, ...]
    predicted: str

    @classmethod
    def of(cls, trials: Iterable[Trial], objectives: Sequence[Objective], front: Front) -> Recipe:
        """`front` is the front of the same trials and objectives."""
        trials = list(trials)
        named: dict[str, Candidate] = {}
        if front.knee is not None:
            named["knee"] = front.candidate(front.knee)
            named |= {f"best {name}": front.candidate(key) for name, key in front.ends.items()}
        complete = [trial for trial in trials if trial.state == "complete"]
        rules: dict[str, list[Evidence]] = {}
        crossed: list[Interaction] = []
        maps: list[PositionMap] = []
        said = ""
        for quantity in trained_quantities(complete):
            foretold = predicted(trials) if quantity == QUANTITY else Predictions()
            effects = Effects(trials, trainings(complete, quantity), front.noise[quantity], predictions=foretold)
            if effects.predicted:
                said = foretold.statement
            for choice in effects.choices:
                rules.setdefault(choice, []).append(Evidence.of(choice, quantity, effects, trials))
            crossed += interactions(effects, quantity)
            maps += position_maps(trials, front.noise, quantity)
        ordered = [Rule(choice, tuple(found), _contradictions(found)) for choice, found in sorted(rules.items())]
        ordered.sort(key=lambda rule: tuple(-worth for worth in rule.worth))
        return cls(
            headline=" ".join(filter(None, (_headline(front), *_beside(front, objectives)))),
            named=named,
            rules=tuple(ordered),
            prices=_prices(complete, objectives, front, named),
            statement=front.statement,
            quantities=trained_quantities(complete),
            interactions=tuple(crossed),
            positions=tuple(maps),
            agreement=tuple(agreement(trials, front.noise)),
            predicted=said,
        )

    @property
    def method(self) -> str:
        """How effects, intervals and claims are made, and what was predicted."""
        return f"{METHOD} {self.predicted}".rstrip()

    @property
    def depends(self) -> tuple[Interaction, ...]:
        """The interactions that are there beyond the noise."""
        return tuple(interaction for interaction in self.interactions if interaction.decided)

    def to_dict(self) -> dict[str, Any]:
        """recipe.json:

        - `headline`: the answer in a sentence; `statement`: what intervals mean
        - `designs`: `knee` and `best <objective>` -> the candidate, as in front.json
        - `prices`: the same names -> what the design gives up against the best one in the first trained objective
          (`difference`, `low`, `high`) and what it saves (`cost`, `cheaper_cost`, `better_cost`)
        - `rules`, most worth first: `choice`, `decided`, `contradictions`, `evidence` by quantity: `kept` and `beaten`
          options, `worth`, `bound`, `statement`, `options` (effect against the mean of the others, interval, n,
          stopped, failed, method) and `pairs` (better, worse, difference, interval, p_holm, decided, n, method,
          more_trials)
        - `interactions` by pair of choices: `p_holm`, `decided`, the difference of differences that stands out most
          with its interval, `cells` (mean of the designs with two options), `statement`
        - `positions`: what attention is worth in each part of the depth, with intervals
        - `agreement`: each published claim: `verdict` (supported, contradicted, undecided), `why`, `difference`
        - `method`: how effects, intervals and claims are made
        """
        return {
            "version": 1,
            "headline": self.headline,
            "statement": self.statement,
            "designs": {name: candidate.to_dict() for name, candidate in self.named.items()},
            "prices": {name: asdict(price) for name, price in self.prices.items()},
            "rules": [rule.to_dict() for rule in self.rules],
            "interactions": [interaction.to_dict() for interaction in self.interactions],
            "positions": [one.to_dict() for one in self.positions],
            "agreement": [finding.to_dict() for finding in self.agreement],
            "method": self.method,
        }


def describe(design: dict[str, Any]) -> str:
    """A design on one line: `1:3, spread, d_state 64, RoPE`."""
    told = {"ratio": "{}", "placement": "{}", "position": "{}", "layout": "{}", "positions": "attention at {}"}
    first = ("layout", "ratio", "positions", "placement")
    position = {"rope": "RoPE", "none": "NoPE"}

    def text(name: str, value: Any) -> str:
        if name == "position":
            value = position.get(value, value)
        if isinstance(value, list):
            value = ", ".join(f"{part:g}" for part in value)
        return told.get(name, name + " {}").format(value)

    ordered = sorted(design, key=lambda name: (first.index(name) if name in first else len(first), name))
    family = [] if design.get("family", "inter") == "inter" else [f"{design['family']}"]
    return ", ".join(family + [text(name, design[name]) for name in ordered if name != "family"])


def estimate_text(candidate: Candidate, quantity: str) -> str:
    if quantity not in candidate.estimates:
        return "–"
    estimate = candidate.estimates[quantity]
    unit = QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
    if estimate.low is None or estimate.high is None:
        return f"{readable(estimate.mean, unit)} (n={estimate.n})"
    return f"{readable(estimate.mean, unit)} [{bare(estimate.low, unit)}, {bare(estimate.high, unit)}] (n={estimate.n})"


def _headline(front: Front) -> str:
    if front.knee is None:
        return "No trial is complete, so there is no answer yet."
    knee = front.candidate(front.knee)
    told = " and ".join(
        estimate_text(knee, o.name) if o.trained else f"{readable(knee.value(o.name), o.unit)} of {label(o.name)}"
        for o in front.objectives
    )
    what = "The knee of the front" if not front.knee_is_end else "The front has no knee; its best end in quality"
    context = f"{knee.cost.context:,} tokens"
    return f"{what} is `{knee.layout}` ({describe(knee.design)}): {told} at {context}; {_standing(front, knee)}."


def _beside(front: Front, objectives: Sequence[Objective]) -> Iterator[str]:
    """What the front gives away in a trained quantity that is no objective: where a design off the front is better in
    it beyond the noise, the cheapest of those as good as the best."""
    cost = next((o for o in objectives if not o.trained), None)
    for name, noise in front.noise.items():
        measured = [c for c in front.candidates if name in c.estimates]
        if cost is None or noise.floor is None or name in {o.name for o in objectives} or not measured:
            continue
        sign = -1.0 if name in QUANTITIES and QUANTITIES[name].direction == "maximize" else 1.0
        best = min(sign * c.value(name) for c in measured)
        held = min((sign * c.value(name) for c in measured if c.member), default=math.inf)
        if not held - best > noise.floor or math.isinf(held):
            continue
        good = [c for c in measured if sign * c.value(name) <= best + noise.floor]
        cheapest = min(good, key=lambda c: cost.loss(c.value(cost.name)))
        others = ", ".join(
            f"{readable(cheapest.value(o.name), o.unit)} of {label(o.name)}"
            if not o.trained
            else f"{o.name} {estimate_text(cheapest, o.name)}"
            for o in objectives
        )
        unit = QUANTITIES[name].unit if name in QUANTITIES else ""
        yield (
            f"The best {name} on the front is {bare(sign * held, unit)}: {name} is no objective here. The cheapest "
            f"design with {name} {bare(cheapest.value(name), unit)} is trial {cheapest.number}, `{cheapest.layout}` "
            f"({describe(cheapest.design)}): {others}."
        )


def _standing(front: Front, knee: Candidate) -> str:
    """Whether the evidence for the knee holds."""
    if knee.probability is None:
        return "the noise was not measured, so how sure this is, is not known"
    if knee.probability < SURE:
        return f"its place on the front lies inside the noise (kept in {knee.probability:.0%} of redraws)"
    if front.knee_probability is not None and front.knee_probability < SURE and not front.knee_is_end:
        return (
            "its place on the front stands outside the noise, but which member is the knee does not "
            f"(this one in {front.knee_probability:.0%} of redraws)"
        )
    return f"its place stands outside the noise (kept in {knee.probability:.0%} of redraws)"


def _contradictions(found: list[Evidence]) -> tuple[str, ...]:
    decided = [{(p.better, p.worse) for p in evidence.pairs if p.decided} for evidence in found]
    return tuple(
        f"Contradiction: {found[i].quantity} favours {a} over {b}, {found[j].quantity} favours {b} over {a}."
        for i in range(len(found))
        for j in range(i + 1, len(found))
        for a, b in sorted(decided[i])
        if (b, a) in decided[j]
    )


def _prices(
    complete: list[Trial], objectives: Sequence[Objective], front: Front, named: dict[str, Candidate]
) -> dict[str, Price]:
    """Against the best design in the first trained objective, at the first cost among the objectives."""
    quality = next((o for o in objectives if o.trained), None)
    cost = next((o for o in objectives if not o.trained), None)
    if not named or quality is None or cost is None:
        return {}
    values = trainings(complete, quality.name)
    best = named[f"best {quality.name}"]
    prices = {}
    for name, candidate in named.items():
        if candidate.key == best.key:
            continue
        difference = quality.loss(candidate.value(quality.name)) - quality.loss(best.value(quality.name))
        one, two = (set(values[c.key.partition("-")[0]]) for c in (candidate, best))
        half = difference_half_width(front.noise[quality.name], one, two)
        prices[name] = Price(
            quantity=quality.name,
            cheaper=candidate.number,
            better=best.number,
            difference=difference,
            low=None if half is None else difference - half,
            high=None if half is None else difference + half,
            cost=cost.name,
            cheaper_cost=candidate.value(cost.name),
            better_cost=best.value(cost.name),
        )
    return prices


def difference_half_width(noise: Noise, one: set[int], two: set[int]) -> float | None:
    """Half of the 95% interval of the difference of two means over these seeds; shared seeds cancel their shifts."""
    if noise.shared is None:
        return None
    common, own, df = noise.shared
    shifts = sum(((seed in one) / len(one) - (seed in two) / len(two)) ** 2 for seed in one | two)
    return student(df) * math.sqrt(common**2 * shifts + own**2 * (1 / len(one) + 1 / len(two)))
