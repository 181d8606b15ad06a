"""Whether a study agrees with what was published, claim by claim: supported, contradicted or undecided."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hybrid_nas.accuracy import possible
from hybrid_nas.choices import option_order
from hybrid_nas.effects import Contrast, Effects, Weights, holm
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.pair_effects import OUT_OF_REACH, more_trials
from hybrid_nas.placement import Ratio
from hybrid_nas.positions import Depths, depths
from hybrid_nas.predicted import QUANTITY, Predictions, predicted
from hybrid_nas.proposal import Proposal
from hybrid_nas.published import CLAIMS, Claim, options_of
from hybrid_nas.reach import SEEDS, Reach
from hybrid_nas.simple_effects import MIN_TRAININGS
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, counted, listed, readable

Verdict = Literal["supported", "contradicted", "undecided"]
ALPHA = 0.05
POWERED = 2.8  # standard errors of a difference that is shown 4 times in 5


@dataclass(frozen=True)
class Finding:
    """One claim's verdict. `difference` is what the claim calls better less what it calls worse, in the quantity's own
    direction, with its 95% interval; None where the study has no such arms, and `why` says what is missing.

    `askable`: this space holds designs on both sides. `more_trials` is how many more search trials would decide it
    (or, where it is not `tested`, allow a verdict); None where it is decided or out of reach. `more_trainings` stands
    in its place where the space has too few designs left. `then` says so in words.
    """

    id: str
    claim: str
    printed: str
    verdict: Verdict
    why: str
    quantity: str
    tested: bool
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    method: str | None = None
    askable: bool = True
    more_trials: int | None = None
    more_trainings: int | None = None
    then: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Question:
    """A claim put to the trials: its `sides` with their trainings, and the contrast, or `why` there is none."""

    claim: Claim
    what: str
    sides: tuple[int, int]
    contrast: Contrast | None
    why: str = ""
    short: float = 0.0  # by which factor the designs are too few for a model
    beyond: bool = False  # no trial of a study like this one could answer it


def agreement(
    trials: Iterable[Trial],
    noise: dict[str, Noise],
    claims: Iterable[Claim] = CLAIMS,
    drawn: Sequence[Proposal] = (),
    foretold: Predictions | None = None,
    reach: Reach | None = None,
) -> list[Finding]:
    """A finding a claim, in the claims' order.

    Every claim was fixed before the study, so each is one contrast and not the best of many. Verdicts on `better` hold
    by Holm's correction over all claims that the study can ask, at 5%; an `equal` claim is supported where its whole
    interval lies within the margin (two one-sided tests, conservatively at 2.5% each).

    `drawn` are random designs of the study's space: they tell what it could ask from what it cannot, and how many
    trials that takes. Without them every claim counts as askable. `foretold` are the losses of stopped trials, where
    the caller has them already.
    """
    trials = list(trials)
    reach = Reach.of(trials) if reach is None else reach
    complete = [trial for trial in trials if trial.state == "complete"]
    values = {name: trainings(complete, name) for name in noise}
    foretold = predicted(trials) if foretold is None else foretold
    questions = [_ask(claim, trials, values, noise, foretold) for claim in claims]
    ordered = [q for q in questions if q.contrast is not None and q.claim.kind != "equal"]
    adjusted = holm([q.contrast.p for q in ordered if q.contrast is not None])
    p_of = {q.claim.id: p for q, p in zip(ordered, adjusted, strict=True)}
    return [
        _judged(q, q.contrast, p_of.get(q.claim.id), len(ordered), reach)
        if q.contrast is not None
        else _open(q, drawn, noise.get(q.claim.quantity), reach)
        for q in questions
    ]


def _ask(
    claim: Claim, trials: list[Trial], values: dict[str, Any], noise: dict[str, Noise], foretold: Predictions
) -> Question:
    if claim.factor is None or (claim.equal_compute and _equal_data(trials)):
        return Question(claim, "", (0, 0), None, f"it needs {claim.needs}", beyond=True)
    if claim.quantity not in values:
        return Question(claim, "", (0, 0), None, f"no trial has a value of {claim.quantity}")
    foretold = foretold if claim.quantity == QUANTITY else Predictions()
    effects = Effects(trials, values[claim.quantity], noise[claim.quantity], claim.settings, foretold)
    if claim.by_depth and (found := depths("attention", trials, values[claim.quantity], effects.noise, foretold)):
        return _by_depth(claim, effects, found)
    counts = effects.counts(claim.factor)
    options = sorted(counts, key=option_order)
    these, those = _sides(claim, options)
    sides = sum(counts[option] for option in these), sum(counts[option] for option in those)
    if not these or not those:
        why = f"it needs designs on both sides of `{claim.factor}` that were trained to the end"
        return Question(claim, "", sides, None, why)
    weights: Weights
    if claim.kind == "worse the rarer":
        ratios = options_of(claim, options)[0]
        weights = _trend(ratios)
        what = f"{ratios[0]} against {ratios[-1]}, by the trend over {listed(ratios)}"
    else:
        weights = {**dict.fromkeys(these, 1 / len(these)), **dict.fromkeys(those, -1 / len(those))}
        what = f"{claim.factor}: {_few(these)} against {_few(those)}"
    if min(sides) < MIN_TRAININGS:
        thin = these if sides[0] < MIN_TRAININGS else those
        why = f"{what}: {listed(thin)} with fewer than {MIN_TRAININGS} trainings, too few for a verdict"
        return Question(claim, what, sides, None, why)
    (contrast,) = effects.contrasts(claim.factor, [weights])
    if contrast is not None:
        return Question(claim, what, sides, contrast)
    short = effects.short_of(claim.factor) / len(effects.designs)
    why = "too few designs for a model" if short else "in these designs it comes together with another choice"
    return Question(claim, what, sides, None, f"{what}: {why}", short)


def _by_depth(claim: Claim, effects: Effects, found: Depths) -> Question:
    """One layer moved from the first place to the middle, as the position map has it: designs with attention in the
    first layer mostly have the next layers there too, which is another matter."""
    counts = effects.counts(str(claim.factor))
    sides = counts.get("other", 0), counts.get("attention", 0)
    if min(sides) < MIN_TRAININGS:
        return Question(
            claim, "", sides, None, "it needs three trainings with attention in the first layer, and without"
        )
    what = "one attention layer: in the middle half against in the first place, the other layers where they are"
    contrast = found.first_layer()
    if contrast is not None:
        return Question(claim, what, sides, contrast)
    why = (
        "in these designs attention in the first layer always comes with further layers right behind it (placement "
        "front), so that the two cannot be told apart; one layer alone there would (ratio 1:12 placed front)"
    )
    return Question(claim, what, sides, None, f"{what}: {why}")


def _equal_data(trials: list[Trial]) -> bool:
    return any(trial.budget.flops is None for trial in trials)


def _sides(claim: Claim, options: Iterable[str]) -> tuple[list[str], list[str]]:
    """What the claim sets against each other; of a trend its two ends."""
    these, those = options_of(claim, options)
    if claim.kind != "worse the rarer":
        return these, those
    return (these[:1], these[-1:]) if len(these) > 1 else ([], [])


def _open(question: Question, drawn: Sequence[Proposal], noise: Noise | None, reach: Reach) -> Finding:
    """A claim without a contrast: whether this space could ask it, what that takes, or which space can."""
    claim, searched = question.claim, reach.searched
    finding = Finding(
        claim.id, claim.text, claim.printed, "undecided", question.why, claim.quantity, False, askable=False
    )
    if question.beyond or claim.factor is None:
        return finding
    settings = [found for proposal in drawn if (found := claim.settings(proposal)) is not None]
    options = [row[claim.factor] for row in settings if claim.factor in row]
    sides = _sides(claim, sorted(set(options), key=option_order))
    if drawn and not all(sides):
        why = f"at this proxy scale this space has no designs on both sides; `hybrid-nas search {claim.space}` has"
        return Finding(**{**finding.to_dict(), "why": why})
    more, then = None, ""
    if question.short:
        more = math.ceil(searched * question.short)
        then = f"about {counted(more, 'more trial')} would be enough for a first estimate"
    elif drawn and min(question.sides) < MIN_TRAININGS:
        rates = [
            have / searched if have else sum(option in side for option in options) / len(drawn)
            for have, side in zip(question.sides, sides, strict=True)
        ]
        lacks = [max(0, MIN_TRAININGS - have) for have in question.sides]
        more = max([math.ceil(lack / rate) for lack, rate in zip(lacks, rates, strict=True)] + [1])
        then = f"about {counted(more, 'more trial')} would bring {MIN_TRAININGS} trainings to each side"
        if noise is not None and noise.own_sd:
            unit = QUANTITIES[claim.quantity].unit
            least = POWERED * noise.own_sd * math.sqrt(sum(1 / max(MIN_TRAININGS, have) for have in question.sides))
            then += f", enough to show a difference of about {readable(least, unit)}"
    if more is not None and more > reach.left:
        more, then = None, f"the space cannot bring the designs that it takes: {reach.ended}"
    return Finding(**{**finding.to_dict(), "askable": True, "more_trials": more, "then": then})


def _few(options: list[str]) -> str:
    return listed(options) if len(options) < 5 else f"{', '.join(options[:3])} and {len(options) - 3} more"


def _trend(ratios: list[str]) -> Weights:
    """Least-squares slope over the logarithm of the attention's share, scaled to the span from first to last."""
    shares = [math.log(r.attention / (r.attention + r.mamba)) for r in map(Ratio.parse, ratios)]
    mean = sum(shares) / len(shares)
    squares = sum((x - mean) ** 2 for x in shares)
    span = max(shares) - min(shares)
    return {ratio: span * (x - mean) / squares for ratio, x in zip(ratios, shares, strict=True)}


def _judged(question: Question, contrast: Contrast, p: float | None, claims: int, reach: Reach) -> Finding:
    claim = question.claim
    unit = QUANTITIES[claim.quantity].unit
    half = contrast.half_width
    at = possible(contrast.difference, unit)
    low, high = possible(contrast.difference - half, unit), possible(contrast.difference + half, unit)
    told = (
        f"{question.what}, {claim.quantity}: {bare(at, unit, True)} [{bare(low, unit, True)}, "
        f"{bare(high, unit, True)}] {unit}, n = {contrast.n}, by {contrast.method}"
    )
    verdict: Verdict = "undecided"
    if claim.kind == "equal":
        if max(abs(low), abs(high)) <= claim.margin:
            verdict = "supported"
        elif min(abs(low), abs(high)) > claim.margin and low * high > 0:
            verdict = "contradicted"
        told += f"; alike means within {bare(claim.margin, unit)}"
    elif p is not None and p < ALPHA:
        sign = -1 if QUANTITIES[claim.quantity].direction == "maximize" else 1
        verdict = "supported" if sign * contrast.difference < 0 else "contradicted"
    more, trainings, then = None, None, ""
    if verdict == "undecided":
        if claim.kind != "equal" and low * high > 0:
            told += f"; 0 lies outside this interval, but not outside one corrected for {claims} claims (Holm)"
        if claim.kind == "equal":
            more = _until_alike(contrast, claim.margin, reach.searched)
        else:
            more = more_trials(contrast, claims, reach.searched)
        more, trainings = reach.split(more)
        then = (
            f"about {counted(more, 'more trial')} would decide it, if the difference is as estimated"
            if more is not None
            else f"about {counted(trainings, 'more training')} would decide it, if the difference is as estimated and "
            f"noise is what hides it: {reach.ended}, so they would be {SEEDS}"
            if trainings is not None
            else f"not even {OUT_OF_REACH} times the trials would decide it, if the difference is as estimated"
        )
    return Finding(
        claim.id, claim.text, claim.printed, verdict, told, claim.quantity, True,
        at, low, high, contrast.n, contrast.method, True, more, trainings, then,
    )  # fmt: skip


def _until_alike(contrast: Contrast, margin: float, searched: int) -> int | None:
    """Search trials until the interval lies wholly within or wholly beyond the margin."""
    room = abs(abs(contrast.difference) - margin)
    share = math.inf if room == 0 else (contrast.half_width / room) ** 2
    return None if share > OUT_OF_REACH else max(1, math.ceil(searched * share) - searched)
