"""Designs that were trained at several sizes or numbers of tokens: what a law in these foretells of each at its target,
and how well it foretold the largest from the others.

The law is fitted to the losses at the end of its trainings; or to its marks, the
held-out losses of rungs at the full learning rate, which a cool-down has not lowered yet.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from hybrid_nas.extrapolation import ALIKE, Check, Forecast, Law, Measured, fit, left_out, varied
from hybrid_nas.rank import Correlation, kendall
from hybrid_nas.trained import AXES, Trained, trained
from hybrid_nas.trial import Trial
from hybrid_nas.units import count, counted, listed

PAPER_TOKENS = 60e9
"""What the paper trains its models at 1B on [arXiv:2510.04800], the target's tokens where nobody says otherwise."""
SHOWN = 3  # reasons in an error
ONE_SIZE = 1.2
"""Proxies of one scale differ in size by less than this, as their depth is whole."""


@dataclass(frozen=True)
class Foretold:
    """A design's law and its forecast at `params` and `tokens`. `checks` are the trainings of the largest size,
    foretold without them; none where that takes more sizes, and `unchecked` says so."""

    of: Trained
    law: Law
    params: float
    tokens: float
    forecast: Forecast
    checks: tuple[Check, ...] = ()
    unchecked: str = ""

    @property
    def largest(self) -> Check | None:
        """The check at the most tokens, its measured loss the mean over seeds."""
        if not self.checks:
            return None
        most = max(check.measured.tokens for check in self.checks)
        ends = [check for check in self.checks if check.measured.tokens == most]
        params = ends[0].measured.params
        return Check(Measured(params, most, fmean(end.measured.loss for end in ends)), ends[0].forecast)

    @property
    def next_largest(self) -> float | None:
        """Mean loss at the size below the largest, after as many tokens: an order without a law."""
        if (end := self.largest) is None or not varied(self.of.points, "params"):
            return None
        below = [p for p in self.of.points if p.params * ALIKE < end.measured.params]
        size = max(p.params for p in below)
        losses = [p.loss for p in below if p.params * ALIKE >= size and _alike(p.tokens, end.measured.tokens)]
        return fmean(losses) if losses else None

    def to_dict(self) -> dict[str, Any]:
        end, law = self.largest, self.law
        return {
            "id": self.of.id,
            "layout": self.of.layout,
            "design": self.of.design.to_dict(),
            "trainings": self.of.trainings,
            "sizes": self.of.range("params"),
            "tokens": self.of.range("tokens"),
            "target_params": self.params,
            "target_tokens": self.tokens,
            **asdict(self.forecast),
            "exponents": [law.alpha if law.a else None, law.beta if law.b else None],
            "floor": law.floor,
            "residual": law.residual,
            "left_out": None if end is None else {**asdict(end.measured), "foretold": asdict(end.forecast)},
            "unchecked": self.unchecked or None,
        }


@dataclass(frozen=True)
class Score:
    """How the largest were foretold: error (root mean square) and how many `inside` over `n` points of `designs`. Their
    order is that of `ordered` designs of one size: `tau` of the law, `before` of the losses at the next smaller size;
    `spread` is how far the measured losses of the middle half of them lie apart. `step` is how many times the next
    smaller the largest is, at the least."""

    error: float
    inside: int
    n: int
    designs: int
    along: str
    step: float
    ordered: int
    tau: Correlation | None
    before: Correlation | None
    spread: float | None

    def to_dict(self) -> dict[str, Any]:
        taus = {name: value and value.to_dict() for name, value in (("tau", self.tau), ("before", self.before))}
        return {**vars(self), **taus}


@dataclass(frozen=True)
class Extrapolation:
    """`designs` in the order of their first trials; `lacking` with the reason that each has no forecast."""

    designs: tuple[Foretold, ...]
    lacking: tuple[tuple[Trained, str], ...]
    axes: tuple[str, ...]
    marks: bool
    vocab: int
    score: Score | None

    @property
    def ranked(self) -> list[Foretold]:
        return sorted(self.designs, key=lambda one: one.forecast.loss)

    def apart(self) -> tuple[int, int]:
        """Of all pairs, how many are told apart."""
        pairs = list(itertools.combinations([one.forecast for one in self.designs], 2))
        return sum(are_apart(*pair) for pair in pairs), len(pairs)

    def to_dict(self) -> dict[str, Any]:
        apart, pairs = self.apart()
        return {
            "losses": "marks before the cool-down" if self.marks else "ends of trainings",
            "varied": list(self.axes),
            "designs": [one.to_dict() for one in self.ranked],
            "lacking": [
                {"id": of.id, "layout": of.layout, "design": of.design.to_dict(), "why": why}
                for of, why in self.lacking
            ],
            "check": self.score and self.score.to_dict(),
            "pairs_told_apart": apart,
            "pairs": pairs,
        }


def are_apart(one: Forecast, other: Forecast) -> bool:
    """By more than the root of the sum of their squared half-widths."""
    return abs(one.loss - other.loss) > math.hypot(one.high - one.loss, other.high - other.loss)


def _alike(one: float, other: float) -> bool:
    return max(one, other) <= ALIKE * min(one, other)


def extrapolate(
    trials: Iterable[Trial], params: float | None = None, tokens: float | None = None, marks: bool = False
) -> Extrapolation:
    """The laws of all designs. `params` None: each design's own at its target; `tokens` None: the paper's. What no
    design varied stays as it was trained. ValueError where no design has a law, or a target was asked for along what
    was not varied."""
    trials = list(trials)
    vocab = trials[0].proxy.vocab
    designs = trained(trials, marks)
    laws: list[tuple[Trained, Law]] = []
    why: dict[str, str] = {}
    for of in designs:
        try:
            laws.append((of, fit(of.points)))
        except ValueError as error:
            why[of.id] = _reason(of, str(error).removeprefix("extrapolation: "), marks)
    axes = tuple(name for name in AXES if any(name in of.varied() for of, _ in laws))
    if not laws:
        raise ValueError(
            f"no design can be extrapolated: {_told(why)}. A law takes two proxy scales or more, or two numbers of "
            "tokens, and four trainings of a design in all (`hybrid-nas table --like` trains the designs of one table "
            "at another scale)" + ("" if marks else "; --marks fits the losses of a training before its cool-down too")
        )
    for name, value in (("params", params), ("tokens", tokens)):
        if value is not None and name not in axes:
            _asked(name, value, [of for of, _ in laws])
    done = []
    for of, law in laws:
        if lacks := [AXES[name] for name in axes if name not in of.varied()]:
            why[of.id] = f"it was trained at one {listed(lacks)}, where others have several"
            continue
        at = (
            (params or of.params) if "params" in axes else of.range("params")[-1],
            (tokens or PAPER_TOKENS) if "tokens" in axes else of.range("tokens")[-1],
        )
        try:
            checks, unchecked = tuple(left_out(of.points)), ""
        except ValueError as error:
            checks, unchecked = (), str(error).removeprefix("extrapolation: ")
        done.append(Foretold(of, law, *at, law.forecast(*at), checks, unchecked))
    if not done:
        raise ValueError(f"no design was trained at several sizes and several numbers of tokens: {_told(why)}")
    return Extrapolation(
        tuple(done), tuple((of, why[of.id]) for of in designs if of.id in why), axes, marks, vocab, _score(done)
    )


def _told(why: dict[str, str]) -> str:
    said = [f"{counted(n, 'design')}: {reason}" for reason, n in Counter(why.values()).most_common()]
    return "; ".join(said[:SHOWN] + ([f"and {counted(len(said) - SHOWN, 'more reason')}"] if len(said) > SHOWN else []))


def _reason(of: Trained, error: str, marks: bool) -> str:
    unused = f" ({of.unused})" if of.unused else ""
    if not of.points:
        what = "mark at the full learning rate" if marks and of.trainings else "complete training"
        return f"no {what}{unused}"
    if not of.varied():
        at = " and ".join(f"one {AXES[name]} ({count(of.range(name)[-1])})" for name in AXES)
        return f"{counted(of.trainings, 'training')} at {at}{unused}"
    return f"{error}{unused}"


def _asked(name: str, value: float, designs: Sequence[Trained]) -> None:
    """ValueError where a target stands along what was not varied, and is not where all were trained."""
    have = [of.range(name)[-1] for of in designs]
    if all(_alike(value, one) for one in have):
        return
    more = "tokens" if name == "tokens" else "params"
    raise ValueError(
        f"--{name} {count(value)}: every design was trained at one {AXES[name]} ({count(max(have))}), so no law says "
        f"what more would do; leave --{name} out, or add trainings at another (--set proxy.{more}=...)"
    )


def _step(values: Sequence[float]) -> float:
    return values[-1] / max(value for value in values if value * ALIKE < values[-1])


def _score(designs: Sequence[Foretold]) -> Score | None:
    import numpy as np

    checks = [check for one in designs for check in one.checks]
    if not checks:
        return None
    ends = [(one, end) for one in designs if (end := one.largest) is not None]
    along = "params" if any(varied(one.of.points, "params") for one, _ in ends) else "tokens"
    most = max(getattr(end.measured, along) for _, end in ends)
    ends = [(one, end) for one, end in ends if getattr(end.measured, along) * ONE_SIZE >= most]
    losses = [end.measured.loss for _, end in ends]
    below = [one.next_largest for one, _ in ends]
    before = [loss for loss in below if loss is not None]
    errors = np.array([check.forecast.loss - check.measured.loss for check in checks])
    steps = [_step(one.of.range(along)) for one, _ in ends]
    low, high = np.quantile(losses, [0.25, 0.75])
    return Score(
        error=float(np.sqrt((errors**2).mean())),
        inside=sum(check.inside for check in checks),
        n=len(checks),
        designs=sum(bool(one.checks) for one in designs),
        along=along,
        step=min(steps),
        ordered=len(ends),
        tau=kendall([end.forecast.loss for _, end in ends], losses),
        before=kendall(before, losses) if len(before) == len(losses) else None,
        spread=float(high - low) if len(ends) >= 4 else None,
    )
