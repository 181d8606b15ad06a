"""Evidence: what the trials say of one choice in one quantity, and whether that is enough to act on."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from statistics import NormalDist
from typing import Any

from hybrid_nas.effects import Contrast, Effects, holm
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.reach import SEEDS, Reach
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, counted, listed, readable

ALPHA = 0.05
MIN_TRAININGS = 3
POWER = 0.8
OUT_OF_REACH = 20  # a difference that needs this many times the trials is named by its bound instead


@dataclass(frozen=True)
class OptionEffect:
    """An option against the mean of the choice's other options, in the quantity's own direction and unit; those with
    too few trainings for a claim are not in that mean.

    `n` counts distinct trainings, `stopped` and `failed` trials that have no value; where many were stopped the
    effect is understated, since those stop that do badly. `effect` is None where the trials hold no evidence.
    """

    option: str
    n: int
    stopped: int
    failed: int
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None

    @property
    def thin(self) -> bool:
        """Whether it has too few trainings to be in a claim."""
        return self.n < MIN_TRAININGS


@dataclass(frozen=True)
class PairEffect:
    """`better` against `worse` as estimated: `difference` is 0 or more; only where `decided` is the order a claim.

    The interval is for this pair alone; `p_holm` is corrected for all pairs of the choice, and decides. `n` counts
    proxies (model) or pairs; `more_trials` is how many more search trials would decide a difference of the size
    estimated, None where it is decided already or out of reach; `more_trainings` is said instead where the space has
    not so many designs left. `rests_on` is an option of another choice without whose
    designs a difference that passes the correction would be less than half and not clear of 0: `without`. Such a
    difference is not decided: it is what the two options do to that one.
    """

    better: str
    worse: str
    difference: float
    low: float
    high: float
    p_holm: float
    decided: bool
    n: int
    method: str
    more_trials: int | None
    more_trainings: int | None = None
    rests_on: str = ""
    without: float | None = None


@dataclass(frozen=True)
class Evidence:
    """`kept` are the options that none is shown to beat, `beaten` those that some other is shown to, and `thin` those
    with too few trainings to be in a claim. `worth` is the largest decided difference, 0 where nothing is decided;
    `bound` is the largest difference that the intervals leave open between kept options. `trials_to_model` is how many
    more search trials a model of the choice needs, where there is no estimate for want of designs; `ended` says why
    there are no further designs to try, where that is what an answer would take.
    """

    choice: str
    quantity: str
    unit: str
    options: tuple[OptionEffect, ...]
    pairs: tuple[PairEffect, ...]
    kept: tuple[str, ...]
    beaten: tuple[str, ...]
    thin: tuple[str, ...]
    worth: float
    bound: float | None
    statement: str
    trials_to_model: int | None = None
    ended: str = ""

    @property
    def decided(self) -> bool:
        return bool(self.beaten)

    @property
    def more_trials(self) -> int | None:
        """How many more search trials would decide the clearest pair of kept options; None where none is in reach."""
        open_ = [p for p in self.pairs if _open(p, self.kept)]
        return min((p.more_trials for p in open_ if p.more_trials is not None), default=None)

    @property
    def more_trainings(self) -> int | None:
        """How many more trainings of the space's designs would, where it has too few designs left."""
        open_ = [p for p in self.pairs if _open(p, self.kept)]
        found = min((p.more_trainings for p in open_ if p.more_trainings is not None), default=None)
        return found if self.more_trials is None else None

    @property
    def more_is_better(self) -> bool:
        return _more_is_better(self.quantity)

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        del data["choice"], data["quantity"]
        more = {"more_trials": self.more_trials, "more_trainings": self.more_trainings}
        return {**data, "decided": self.decided, **more}

    @classmethod
    def of(
        cls,
        choice: str,
        quantity: str,
        effects: Effects,
        trials: Iterable[Trial],
        questioned: bool = False,
        reach: Reach | None = None,
    ) -> Evidence:
        """`reach` says how many designs there still are. `questioned`: look for what a decided difference rests on, by
        a fit without each option of the others."""
        unit = QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
        sign = -1.0 if _more_is_better(quantity) else 1.0
        trials = list(trials)
        options = effects.choices[choice]
        counts = effects.counts(choice)
        reach = Reach.of(trials) if reach is None else reach
        pairs = _pairs(effects, choice, options, counts, sign, reach)
        to_model = _to_model(effects, choice, reach.searched) if not pairs else None
        if questioned:
            pairs = _questioned(effects, choice, pairs, sign)
            pairs = tuple(replace(pair, decided=pair.decided and not pair.rests_on) for pair in pairs)
        beaten = tuple(option for option in options if any(p.worse == option and p.decided for p in pairs))
        thin = tuple(option for option in options if counts[option] < MIN_TRAININGS)
        kept = tuple(option for option in options if option not in beaten and option not in thin)
        evidence = cls(
            choice=choice,
            quantity=quantity,
            unit=unit,
            options=_options(effects, choice, options, counts, trials),
            pairs=pairs,
            kept=kept,
            beaten=beaten,
            thin=thin,
            worth=max((p.difference for p in pairs if p.decided), default=0.0),
            bound=max((p.high for p in pairs if _open(p, kept)), default=None),
            statement="",
            trials_to_model=reach.split(to_model)[0],
            ended=reach.ended if reach.split(to_model)[1] or any(pair.more_trainings for pair in pairs) else "",
        )
        return cls(**{**evidence.__dict__, "statement": _statement(evidence)})


def _open(pair: PairEffect, kept: tuple[str, ...]) -> bool:
    """Whether more evidence of the same kind could decide the pair."""
    return not pair.decided and not pair.rests_on and {pair.better, pair.worse} <= set(kept)


def _questioned(effects: Effects, choice: str, pairs: tuple[PairEffect, ...], sign: float) -> tuple[PairEffect, ...]:
    """The pairs, each decided one with what it rests on, where that is the designs of one option of another choice."""
    asked = list(pairs)
    decided = [i for i, pair in enumerate(pairs) if pair.decided]
    for other, options in effects.choices.items() if decided else ():
        for option in options if other != choice else ():
            fit = effects.without(choice, other, option)
            for i in decided if fit is not None else ():
                pair = asked[i]
                found = fit.contrast({pair.better: 1.0, pair.worse: -1.0}) if fit else None
                if found is None:
                    continue
                left = -sign * found.difference
                least = pair.difference / 2 if pair.without is None else pair.without
                if left < least and left - found.half_width < 0:
                    asked[i] = replace(pair, rests_on=f"{other} {option}", without=left)
    return tuple(asked)


def _to_model(effects: Effects, choice: str, searched: int) -> int | None:
    short = effects.short_of(choice)
    return math.ceil(short * searched / len(effects.designs)) if short else None


def _more_is_better(quantity: str) -> bool:
    return quantity in QUANTITIES and QUANTITIES[quantity].direction == "maximize"


def _pairs(
    effects: Effects, choice: str, options: tuple[str, ...], counts: dict[str, int], sign: float, reach: Reach
) -> tuple[PairEffect, ...]:
    named = list(combinations(options, 2))
    contrasts = effects.contrasts(choice, [{a: 1.0, b: -1.0} for a, b in named])
    found = [(pair, contrast) for pair, contrast in zip(named, contrasts, strict=True) if contrast is not None]
    pairs = []
    for ((a, b), contrast), p in zip(found, holm([c.p for _, c in found]), strict=True):
        difference = sign * contrast.difference
        better, worse = (a, b) if difference <= 0 else (b, a)
        decided = p < ALPHA and min(counts[a], counts[b]) >= MIN_TRAININGS
        more, trainings = reach.split(None if decided else more_trials(contrast, len(found), reach.searched))
        pairs.append(
            PairEffect(
                better=better,
                worse=worse,
                difference=abs(difference),
                low=abs(difference) - contrast.half_width,
                high=abs(difference) + contrast.half_width,
                p_holm=p,
                decided=decided,
                n=contrast.n,
                method=contrast.method,
                more_trials=more,
                more_trainings=trainings,
            )
        )
    return tuple(pairs)


def more_trials(contrast: Contrast, claims: int, searched: int) -> int | None:
    """Search trials beyond the `searched` that show the estimated difference 4 times in 5 among `claims` corrected
    claims; None where that is out of reach.

    A normal estimate: errors shrink with the root of the number of trials, if further ones are like these.
    """
    if not contrast.difference:
        return None
    normal = NormalDist()
    needed = normal.inv_cdf(1 - ALPHA / 2 / claims) + normal.inv_cdf(POWER)
    share = (needed * contrast.error / contrast.difference) ** 2
    return None if share > OUT_OF_REACH else max(1, math.ceil(searched * share) - searched)


def _options(
    effects: Effects, choice: str, options: tuple[str, ...], counts: dict[str, int], trials: Iterable[Trial]
) -> tuple[OptionEffect, ...]:
    lost = {state: dict.fromkeys(options, 0) for state in ("stopped", "failed")}
    for trial in trials:
        if trial.state not in lost:
            continue
        option = (effects.settings_of(trial) or {}).get(choice)
        if option in lost[trial.state]:
            lost[trial.state][option] += 1
    solid = [option for option in options if counts[option] >= MIN_TRAININGS]
    family = []
    for option in options:
        others = [o for o in solid if o != option] or [o for o in options if o != option]
        family.append({option: 1.0, **dict.fromkeys(others, -1 / len(others))})
    rows = []
    for option, contrast in zip(options, effects.contrasts(choice, family), strict=True):
        row = OptionEffect(option, counts[option], lost["stopped"][option], lost["failed"][option])
        if contrast is not None:
            low, high = contrast.difference - contrast.half_width, contrast.difference + contrast.half_width
            row = OptionEffect(option, row.n, row.stopped, row.failed, contrast.difference, low, high, contrast.method)
        rows.append(row)
    return tuple(rows)


def _resting(evidence: Evidence) -> list[str]:
    """A sentence for each option of another choice in whose designs alone differences are there."""
    unit = evidence.unit
    found: dict[str, list[str]] = {}
    for p in sorted(evidence.pairs, key=lambda p: -p.difference):
        if p.rests_on:
            found.setdefault(p.rests_on, []).append(
                f"{p.better} over {p.worse} by {readable(p.difference, unit)} [{bare(p.low, unit)}, "
                f"{bare(p.high, unit)}] (n = {p.n}, by {p.method}; without them {bare(p.without or 0.0, unit, True)})"
            )
    return [f"Not decided, resting on designs with {rest}: {'; '.join(told)}." for rest, told in found.items()]


def _statement(evidence: Evidence) -> str:
    """One or two sentences; options that are not told apart are named in a fixed order, never by their estimates."""
    if not evidence.pairs:
        if evidence.ended:
            return f"Undecided: too few designs to estimate anything, and {evidence.ended}."
        if (more := evidence.trials_to_model) is None:
            return (
                "Undecided: in these designs it comes together with other choices, or makes no difference at the proxy "
                "scale."
            )
        return f"Undecided: too few designs to estimate anything; about {counted(more, 'more trial')} would be enough."
    parts = []
    for option in evidence.beaten:
        best = max((p for p in evidence.pairs if p.worse == option and p.decided), key=lambda p: p.difference)
        parts.append(
            f"{best.better} beats {option} by {readable(best.difference, evidence.unit)} "
            f"[{bare(best.low, evidence.unit)}, {bare(best.high, evidence.unit)}] (n = {best.n}, by {best.method})"
        )
    sentences = ["; ".join(parts) + "."] if parts else []
    sentences += _resting(evidence)
    open_ = [p for p in evidence.pairs if _open(p, evidence.kept)]
    if evidence.bound is not None:
        names = listed(option for option in evidence.kept if any(option in (p.better, p.worse) for p in open_))
        lead = f"Between {names}: undecided" if sentences else f"Undecided between {names}"
        sentences.append(f"{lead}; a difference of up to {readable(evidence.bound, evidence.unit)} is possible.")
        if (more := evidence.more_trials) is not None:
            sentences.append(
                f"About {counted(more, 'more trial')} would decide the clearest pair, if it is as estimated."
            )
        elif (trainings := evidence.more_trainings) is not None:
            sentences.append(
                f"About {counted(trainings, 'more training')} would decide the clearest pair, if it is as estimated "
                f"and noise is what hides it: {evidence.ended}, so they would be {SEEDS}."
            )
        else:
            sentences.append("If the differences are as small as estimated, no affordable number of trials shows them.")
    if evidence.thin:
        verb = "has" if len(evidence.thin) == 1 else "have"
        sentences.append(f"{listed(evidence.thin)} {verb} fewer than {MIN_TRAININGS} trainings, too few for a claim.")
    return " ".join(sentences)
