"""Whether a study agrees with what was published, claim by claim: supported, contradicted or undecided."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hybrid_nas.effects import Contrast, Effects, Weights, holm
from hybrid_nas.evidence import MIN_TRAININGS
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.placement import Ratio
from hybrid_nas.predicted import QUANTITY, Predictions, predicted
from hybrid_nas.published import CLAIMS, Claim, options_of
from hybrid_nas.student import student
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, listed

Verdict = Literal["supported", "contradicted", "undecided"]
ALPHA = 0.05


@dataclass(frozen=True)
class Finding:
    """One claim's verdict. `difference` is what the claim calls better less what it calls worse, in the quantity's own
    direction, with its 95% interval; None where the study has no such arms, and `why` says what is missing.
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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def agreement(trials: Iterable[Trial], noise: dict[str, Noise], claims: Iterable[Claim] = CLAIMS) -> list[Finding]:
    """A finding a claim, in the claims' order.

    Every claim was fixed before the study, so each is one contrast and not the best of many. Verdicts on `better` hold
    by Holm's correction over all claims that the study can ask, at 5%; an `equal` claim is supported where its whole
    interval lies within the margin (two one-sided tests, conservatively at 2.5% each).
    """
    trials = list(trials)
    complete = [trial for trial in trials if trial.state == "complete"]
    values = {name: trainings(complete, name) for name in noise}
    asked: dict[str, tuple[Claim, Contrast, str]] = {}
    missing: dict[str, str] = {}
    claims = tuple(claims)
    for claim in claims:
        found = _ask(claim, trials, values, noise)
        if isinstance(found, str):
            missing[claim.id] = found
        else:
            asked[claim.id] = (claim, *found)
    ordered = [name for name, (claim, _, _) in asked.items() if claim.kind != "equal"]
    adjusted = dict(zip(ordered, holm([asked[name][1].p for name in ordered]), strict=True))
    return [
        _judged(*asked[claim.id], adjusted.get(claim.id))
        if claim.id in asked
        else Finding(claim.id, claim.text, claim.printed, "undecided", missing[claim.id], claim.quantity, False)
        for claim in claims
    ]


def _ask(
    claim: Claim, trials: list[Trial], values: dict[str, Any], noise: dict[str, Noise]
) -> tuple[Contrast, str] | str:
    """The claim's contrast and what it compares, or what is missing."""
    if claim.factor is None:
        return f"it needs {claim.needs}"
    if claim.quantity not in values:
        return f"no trial has a value of {claim.quantity}"
    foretold = predicted(trials) if claim.quantity == QUANTITY else Predictions()
    effects = Effects(trials, values[claim.quantity], noise[claim.quantity], claim.settings, foretold)
    options = effects.choices.get(claim.factor, ())
    these, those = options_of(claim, options)
    weights: Weights
    if claim.kind == "worse the rarer":
        if len(these) < 2:
            return "it needs designs of two ratios or more that were trained to the end"
        weights = _trend(these)
        what = f"{these[0]} against {these[-1]}, by the trend over {listed(these)}"
    else:
        if not these or not those:
            return f"it needs designs on both sides of `{claim.factor}` that were trained to the end"
        weights = {**dict.fromkeys(these, 1 / len(these)), **dict.fromkeys(those, -1 / len(those))}
        what = f"{claim.factor}: {_few(these)} against {_few(those)}"
    (contrast,) = effects.contrasts(claim.factor, [weights])
    counts = effects.counts(claim.factor)
    sides = [these, those] if claim.kind != "worse the rarer" else [these[:1], these[-1:]]
    thin = [side for side in sides if sum(counts[option] for option in side) < MIN_TRAININGS]
    if thin:
        return f"{what}: {listed(thin[0])} with fewer than {MIN_TRAININGS} trainings, too few for a verdict"
    if contrast is None:
        return f"{what}: too few designs to tell the sides apart"
    return contrast, what


def _few(options: list[str]) -> str:
    return listed(options) if len(options) < 5 else f"{', '.join(options[:3])} and {len(options) - 3} more"


def _trend(ratios: list[str]) -> Weights:
    """Least-squares slope over the logarithm of the attention's share, scaled to the span from first to last."""
    shares = [math.log(r.attention / (r.attention + r.mamba)) for r in map(Ratio.parse, ratios)]
    mean = sum(shares) / len(shares)
    squares = sum((x - mean) ** 2 for x in shares)
    span = max(shares) - min(shares)
    return {ratio: span * (x - mean) / squares for ratio, x in zip(ratios, shares, strict=True)}


def _judged(claim: Claim, contrast: Contrast, what: str, p: float | None) -> Finding:
    unit = QUANTITIES[claim.quantity].unit
    half = contrast.half_width
    low, high = contrast.difference - half, contrast.difference + half
    told = (
        f"{what}: {bare(contrast.difference, unit, True)} [{bare(low, unit, True)}, {bare(high, unit, True)}], "
        f"n = {contrast.n}, by {contrast.method}"
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
    if verdict == "undecided" and claim.kind != "equal" and contrast.difference:
        needed = (student(contrast.df) + 0.84) * contrast.error / abs(contrast.difference)
        if needed**2 <= 20 and needed > 1:
            told += f"; {needed**2:.1f} times the designs would show a difference of this size"
    return Finding(
        claim.id, claim.text, claim.printed, verdict, told, claim.quantity, True,
        contrast.difference, low, high, contrast.n, contrast.method,
    )  # fmt: skip
