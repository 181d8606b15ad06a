"""The options of a choice against each other, in one quantity: each against the rest, and every pair."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import NormalDist

from hybrid_nas.accuracy import possible
from hybrid_nas.effects import Contrast, Effects, holm
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.reach import Reach
from hybrid_nas.simple_effects import MIN_TRAININGS, Split, splits
from hybrid_nas.trial import Trial

ALPHA = 0.05
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
    difference is not decided: it is what the two options do to that one. `split` is there where the difference varies
    over the options of another choice by more than itself: then it is decided only where it has one sign at all of
    them, and `split` has the figures, `difference` being an average that no design gets.
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
    split: Split | None = None

    @property
    def conditional(self) -> bool:
        """Whether it is decided at some option of another choice, and not at large."""
        return not self.decided and self.split is not None and any(part.clear for part in self.split.parts)

    @property
    def least(self) -> float:
        """What the better option is worth at the least, at any option of the choice that the pair depends on."""
        return self.difference if self.split is None else min(abs(part.difference) for part in self.split.parts)


def split_pairs(
    effects: Effects, choice: str, pairs: tuple[PairEffect, ...], sign: float, unit: str
) -> tuple[PairEffect, ...]:
    """The pairs, each with what it is at the options of the choice that it depends on, where one figure is too few."""
    named, averages = [(p.better, p.worse) for p in pairs], [p.difference for p in pairs]
    claimed = [p.decided for p in pairs]
    found = splits(effects, choice, named, averages, claimed, sign, unit)
    return tuple(
        replace(p, split=split, decided=p.decided and split.agreed, more_trials=None, more_trainings=None)
        if split
        else p
        for p, split in zip(pairs, found, strict=True)
    )


def questioned_pairs(
    effects: Effects, choice: str, pairs: tuple[PairEffect, ...], sign: float
) -> tuple[PairEffect, ...]:
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


def trials_to_model(effects: Effects, choice: str, searched: int) -> int | None:
    short = effects.short_of(choice)
    return math.ceil(short * searched / len(effects.designs)) if short else None


def more_is_better(quantity: str) -> bool:
    return quantity in QUANTITIES and QUANTITIES[quantity].direction == "maximize"


def pair_effects(
    effects: Effects, choice: str, options: tuple[str, ...], counts: dict[str, int], sign: float, reach: Reach
) -> tuple[PairEffect, ...]:
    named = list(combinations(options, 2))
    contrasts = effects.contrasts(choice, [{a: 1.0, b: -1.0} for a, b in named])
    found = [(pair, contrast) for pair, contrast in zip(named, contrasts, strict=True) if contrast is not None]
    unit = unit_of(effects.noise.quantity)
    pairs = []
    for ((a, b), contrast), p in zip(found, holm([c.p for _, c in found]), strict=True):
        difference = possible(sign * contrast.difference, unit)
        better, worse = (a, b) if difference <= 0 else (b, a)
        decided = p < ALPHA and min(counts[a], counts[b]) >= MIN_TRAININGS
        more, trainings = reach.split(None if decided else more_trials(contrast, len(found), reach.searched))
        pairs.append(
            PairEffect(
                better=better,
                worse=worse,
                difference=abs(difference),
                low=possible(abs(difference) - contrast.half_width, unit),
                high=possible(abs(difference) + contrast.half_width, unit),
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


def option_effects(
    effects: Effects, choice: str, options: tuple[str, ...], counts: dict[str, int], trials: Iterable[Trial]
) -> tuple[OptionEffect, ...]:
    lost = {state: dict.fromkeys(options, 0) for state in ("stopped", "failed")}
    for trial in trials:
        if trial.state not in lost:
            continue
        option = (effects.settings_of(trial) or {}).get(choice)
        if option in lost[trial.state]:
            lost[trial.state][option] += 1
    unit = unit_of(effects.noise.quantity)
    solid = [option for option in options if counts[option] >= MIN_TRAININGS]
    family = []
    for option in options:
        others = [o for o in solid if o != option] or [o for o in options if o != option]
        family.append({option: 1.0, **dict.fromkeys(others, -1 / len(others))})
    rows = []
    for option, contrast in zip(options, effects.contrasts(choice, family), strict=True):
        row = OptionEffect(option, counts[option], lost["stopped"][option], lost["failed"][option])
        if contrast is not None:
            at, half = contrast.difference, contrast.half_width
            low, effect, high = (possible(value, unit) for value in (at - half, at, at + half))
            row = OptionEffect(option, row.n, row.stopped, row.failed, effect, low, high, contrast.method)
        rows.append(row)
    return tuple(rows)


def unit_of(quantity: str) -> str:
    return QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
