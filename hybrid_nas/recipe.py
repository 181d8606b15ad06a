"""The Recipe: what the front and all trials say about each choice, as rules with their evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hybrid_nas.agreement import Finding, agreement
from hybrid_nas.candidate import SURE, Candidate
from hybrid_nas.choices import merged, settings_of
from hybrid_nas.design import Design
from hybrid_nas.effects import Effects
from hybrid_nas.evidence import Evidence
from hybrid_nas.front import Front
from hybrid_nas.interactions import Interaction, interactions
from hybrid_nas.noise import trained_quantities, trainings
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.outlook import Further, beyond, outlook
from hybrid_nas.positions import PositionMap, position_maps
from hybrid_nas.predicted import QUANTITY, Predictions, predicted
from hybrid_nas.price import Price, prices
from hybrid_nas.proposal import Proposal
from hybrid_nas.reach import Reach
from hybrid_nas.speed import SPEEDS
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, counted, label, listed, readable

METHOD = (
    "Effects come from a main-effects model over all complete trials to which a choice applies, adjusted for the "
    "other choices, or from paired differences at one seed between designs that differ in that choice alone, "
    "whichever is clearly sharper. Intervals are 95%, each for itself; the residual variance is never taken below "
    "the noise between seeds. Replicates measure that noise; they enter no effect, because they were given to "
    "designs that did well, and their further seeds alone would favour the options of these: effects compare "
    "designs at the seeds at which all were trained. So an effect's n counts designs or pairs, a table's n and the "
    "3 below count trainings, replicates included. A claim is made where Holm's correction over all pairs of "
    "options of the choice holds at 5% and each option has at least 3 trainings, and where the difference does not "
    "rest on the designs with one option of another choice (looked for up to 500 designs). Where a difference "
    "varies over the options of another choice (of at most 8) by more than its own mean, it is given at each of "
    "these options and the mean is no claim; everything else is undecided. Trials stopped early have no final "
    "value; where their held-out losses do not foretell it they are left out, which understates how bad the options "
    "are that were stopped most."
)


QUESTIONED = 500  # designs, up to which a decided rule is tried without each option of the other choices
PLACED = ("layout", "ratio", "positions", "placement", "family")  # in the order in which they are said


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

    @property
    def says(self) -> bool:
        """Whether anything is decided, at large or where another choice has some option."""
        return any(e.says for e in self.evidence)

    def to_dict(self) -> dict[str, Any]:
        return {
            "choice": self.choice,
            "decided": self.decided,
            "evidence": {e.quantity: e.to_dict() for e in self.evidence},
            "contradictions": list(self.contradictions),
        }


@dataclass(frozen=True)
class Recipe:
    """`named` are the designs to look at: the knee and the best in each objective. Rules come most worth first. `alike`
    is what all designs choose alike; `speeds` are the objectives that are one."""

    answer: str
    beside: tuple[str, ...]
    named: dict[str, Candidate]
    rules: tuple[Rule, ...]
    prices: dict[str, Price]
    statement: str
    quantities: tuple[str, ...]
    interactions: tuple[Interaction, ...]
    positions: tuple[PositionMap, ...]
    agreement: tuple[Finding, ...]
    outlook: tuple[Further, ...]
    beyond: str
    predicted: str
    alike: dict[str, Any]
    speeds: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        trials: Iterable[Trial],
        objectives: Sequence[Objective],
        front: Front,
        drawn: Sequence[Proposal] = (),
        designs: int | None = None,
    ) -> Recipe:
        """`front` is the front of the same trials and objectives; `drawn` as for `agreement`; `designs` is how many
        the space holds."""
        trials = list(trials)
        reach = Reach.of(trials, designs)
        named: dict[str, Candidate] = {}
        if front.knee is not None:
            named["knee"] = front.candidate(front.knee)
            named |= {f"best {name}": front.candidate(key) for name, key in front.ends.items()}
        complete = [trial for trial in trials if trial.state == "complete"]
        rules: dict[str, list[Evidence]] = {}
        crossed: list[Interaction] = []
        maps: list[PositionMap] = []
        said = ""
        settings = merged(trials)
        of_loss = predicted(trials)
        for quantity in trained_quantities(complete):
            foretold = of_loss if quantity == QUANTITY else Predictions()
            values = trainings(complete, quantity)
            effects = Effects(trials, values, front.noise[quantity], settings, predictions=foretold)
            if effects.predicted:
                said = foretold.statement
            for choice in effects.choices:
                evidence = Evidence.of(choice, quantity, effects, trials, len(effects.designs) <= QUESTIONED, reach)
                rules.setdefault(choice, []).append(evidence)
            crossed += interactions(effects, quantity)
            maps += position_maps(trials, front.noise, quantity, foretold)
        ordered = [Rule(choice, tuple(found), _contradictions(found)) for choice, found in sorted(rules.items())]
        ordered.sort(key=lambda rule: tuple((-e.worth, -e.at_most) for e in rule.evidence))
        findings = agreement(trials, front.noise, drawn=drawn, foretold=of_loss, reach=reach)
        alike = common(trial.design for trial in trials)
        told = [e for rule in ordered for e in rule.evidence]
        return cls(
            answer=_answer(front, alike),
            beside=tuple(_beside(front, objectives)),
            named=named,
            rules=tuple(ordered),
            prices=prices(complete, objectives, front, named),
            statement=front.statement,
            quantities=trained_quantities(complete),
            speeds=tuple(o.name for o in objectives if o.name in SPEEDS),
            interactions=tuple(crossed),
            positions=tuple(maps),
            agreement=tuple(findings),
            outlook=outlook(told, findings, reach.searched),
            beyond=beyond(told, findings, reach),
            predicted=said,
            alike=alike,
        )

    @property
    def headline(self) -> str:
        """The answer, and what the front gives away."""
        return " ".join((self.answer, *self.beside))

    @property
    def method(self) -> str:
        """How effects, intervals and claims are made, and what was predicted."""
        return f"{METHOD} {self.predicted}".rstrip()

    @property
    def silent(self) -> dict[str, str]:
        """Quantities in which no effect of any choice can be estimated, and what is said of that."""
        found = {}
        for quantity in self.quantities:
            evidence = [e for rule in self.rules for e in rule.evidence if e.quantity == quantity]
            if evidence and not any(e.pairs for e in evidence):
                more = max((e.trials_to_model for e in evidence if e.trials_to_model is not None), default=None)
                then = f"; about {counted(more, 'more trial')} would be enough for a first estimate" if more else ""
                found[quantity] = f"No effect on {quantity} can be estimated: too few designs trained to the end{then}."
        return found

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
          more_trials, and `split`: the pair at each option of the choice that it depends on by more than its mean);
          `conditional` are choices at whose options alone a difference is decided
        - `interactions` by pair of choices: `p_holm`, `decided`, the difference of differences that stands out most
          with its interval, `cells` (mean of the designs with two options), `statement`
        - `positions`: what attention is worth in each part of the depth, with intervals
        - `agreement`: each published claim: `verdict` (supported, contradicted, undecided), `why`, `difference`,
          `askable`, `more_trials`
        - `outlook`: `trials` in all, and what they would decide; `beyond`: what only more seeds would
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
            "outlook": [further.to_dict() for further in self.outlook],
            "beyond": self.beyond,
            "method": self.method,
        }


def common(designs: Iterable[Design]) -> dict[str, Any]:
    """What all designs to which it applies choose alike, but for what says where layers stand. A choice left at its
    default is a choice: with full attention in some designs, a window of the others is not common."""
    found: dict[str, list[Any]] = {}
    options: dict[str, set[str]] = {}
    designs = set(designs)
    for design in designs:
        for name, option in settings_of(design).items():
            options.setdefault(name, set()).add(option)
        for name, value in design.to_dict().items():
            if name not in PLACED and value not in found.setdefault(name, []):
                found[name].append(value)
    found = {name: values for name, values in found.items() if len(options.get(name, "x")) == 1}
    return {name: values[0] for name, values in sorted(found.items()) if len(values) == 1} if len(designs) > 1 else {}


def describe(design: dict[str, Any], without: Iterable[str] = ()) -> str:
    """A design on one line: `1:3, spread, d_state 64, RoPE`."""
    design = {name: value for name, value in design.items() if name not in set(without)}
    told = {"ratio": "{}", "placement": "{}", "position": "{}", "layout": "{}", "positions": "attention at {}"}
    position = {"rope": "RoPE", "none": "NoPE"}

    def text(name: str, value: Any) -> str:
        if name == "position":
            value = position.get(value, value)
        if isinstance(value, list):
            value = ", ".join(f"{part:g}" for part in value)
        return told.get(name, name + " {}").format(value)

    ordered = sorted(design, key=lambda name: (PLACED.index(name) if name in PLACED else len(PLACED), name))
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


def _answer(front: Front, alike: Iterable[str]) -> str:
    if front.knee is None:
        return "No trial is complete, so there is no answer yet."
    knee = front.candidate(front.knee)
    told = listed(
        f"{label(o.name)} {estimate_text(knee, o.name) if o.trained else readable(knee.value(o.name), o.unit)}"
        for o in front.objectives
    )
    what = "The knee of the front" if not front.knee_is_end else "The front has no knee; its best end in quality"
    where = _where(knee, [o.name for o in front.objectives if not o.trained])
    return f"{what} is `{knee.layout}` ({describe(knee.design, alike)}): {told}{where}; {_standing(front, knee)}."


def _where(knee: Candidate, costs: list[str]) -> str:
    """At which shapes costs and speeds are: a speed's are not the target's context where the study says so."""
    speeds = [name for name in costs if name in SPEEDS]
    if not speeds:
        return f" at {knee.cost.context:,} tokens"
    of = {name: "" if knee.cost.speed is None else knee.cost.speed.shape(name) for name in speeds}
    told = [f"{label(name)} with {shape.removeprefix('training with ')}" for name, shape in of.items() if shape]
    if others := [label(name) for name in costs if name not in SPEEDS]:
        told.insert(0, f"{listed(others)} at {knee.cost.context:,} tokens")
    return f" ({'; '.join(told)})" if told else ""


def _beside(front: Front, objectives: Sequence[Objective]) -> Iterator[str]:
    """What the front gives away in a trained quantity that is no objective: where a design off the front is better in
    it beyond the noise, the cheapest of those as good as the best."""
    cost = next((o for o in objectives if not o.trained), None)
    for name, noise in front.noise.items():
        measured = [c for c in front.candidates if name in c.estimates]
        if cost is None or noise.sd is None or name in {o.name for o in objectives} or not measured:
            continue
        sign = -1.0 if name in QUANTITIES and QUANTITIES[name].direction == "maximize" else 1.0
        best = min(sign * c.value(name) for c in measured)
        held = min((sign * c.value(name) for c in measured if c.member), default=math.inf)
        if math.isinf(held) or not (held > best and noise.apart(sign * held, sign * best)):
            continue
        good = [c for c in measured if not noise.apart(c.value(name), sign * best)]
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
        return f"its place on the front lies inside the noise (kept in {knee.probability:.0%} of redraws of the noise)"
    if front.knee_probability is not None and front.knee_probability < SURE and not front.knee_is_end:
        return (
            "its place on the front stands outside the noise, but which member is the knee does not "
            f"(this one in {front.knee_probability:.0%} of redraws of the noise)"
        )
    return f"its place stands outside the noise (kept in {knee.probability:.0%} of redraws of the noise)"


def _contradictions(found: list[Evidence]) -> tuple[str, ...]:
    decided = [{(p.better, p.worse) for p in evidence.pairs if p.decided} for evidence in found]
    return tuple(
        f"Contradiction: {found[i].quantity} favours {a} over {b}, {found[j].quantity} favours {b} over {a}."
        for i in range(len(found))
        for j in range(i + 1, len(found))
        for a, b in sorted(decided[i])
        if (b, a) in decided[j]
    )
