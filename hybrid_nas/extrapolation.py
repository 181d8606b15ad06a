"""Losses at a size and a number of tokens that were not trained, from those that were.

The law is loss = floor + a N^-alpha + b D^-beta in parameters N and tokens D [arXiv:2203.15556, eq. 2], fitted by
least squares with Huber's loss in the logarithms of its terms, from a grid of starts. With one size the size's term is
left out, with one number of tokens the tokens': what was not varied cannot be told. With two its exponent is the usual
one, and the interval holds what it might be instead.

Intervals are those of least squares (the law's slope in its own numbers, by Student's t) with the residual of a new
training in them. They hold where the law holds: they do not know of what changes beyond the sizes that were seen, which
`left_out` checks on the largest of them.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybrid_nas.units import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LEVEL = 0.95
HUBER = 1e-3
STARTS = tuple(itertools.product((0.5, 0.9), (0.15, 0.5), (0.15, 0.5)))
"""The floor as a share of the lowest loss, and the exponents."""
SMALLEST, STEEPEST = 0.01, 3.0  # of an exponent
ALIKE = 1.05  # the ratio up to which two sizes, or numbers of tokens, are one
TELLS = 3  # sizes, or numbers of tokens, that tell an exponent apart from the floor
USUAL, RANGE = (0.34, 0.28), (0.2, 0.5)
"""Exponents of size and tokens where two do not tell them [arXiv:2203.15556, section 3.3], and where they may lie."""


@dataclass(frozen=True)
class Measured:
    """One training: parameters (without embeddings), tokens seen, held-out loss in nats per token."""

    params: float
    tokens: float
    loss: float

    def __post_init__(self) -> None:
        for name in ("params", "tokens", "loss"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ValueError(f"extrapolation: {name} must be a number above 0, found {value!r}")


@dataclass(frozen=True)
class Forecast:
    """A predicted loss with its 95% interval, as least squares gives it: it may reach below 0, where no loss is."""

    loss: float
    low: float
    high: float


@dataclass(frozen=True)
class Law:
    """`floor` + `a` N^-`alpha` + `b` D^-`beta`; a (or b) is 0 where sizes (or tokens) were not varied. N and D are
    counted in units of `unit`, which keeps the fit well scaled. `residual` is the standard deviation of a training
    about the law, `covariance` that of the numbers that were fitted (`varies`; floor and factors by their logarithms),
    `freedom` how many trainings there were beyond these. `others` are laws with other exponents, where two sizes (or
    numbers of tokens) do not tell them."""

    floor: float
    a: float
    alpha: float
    b: float
    beta: float
    unit: tuple[float, float]
    residual: float
    freedom: int
    varies: tuple[bool, ...]
    covariance: tuple[tuple[float, ...], ...]
    others: tuple[tuple[float, float, float, float, float], ...] = ()

    def loss(self, params: float, tokens: float) -> float:
        here = params / self.unit[0], tokens / self.unit[1]
        return float(_law((self.floor, self.a, self.alpha, self.b, self.beta), *here))

    def forecast(self, params: float, tokens: float) -> Forecast:
        """The loss of a new training there."""
        import numpy as np
        from scipy.stats import t

        x, y = params / self.unit[0], tokens / self.unit[1]
        size, data = self.a * x**-self.alpha, self.b * y**-self.beta
        gradient = np.array([self.floor, size, -size * np.log(x), data, -data * np.log(y)])[list(self.varies)]
        spread = np.sqrt(self.residual**2 + gradient @ np.array(self.covariance) @ gradient)
        middle = self.loss(params, tokens)
        apart = max((abs(float(_law(other, x, y)) - middle) for other in self.others), default=0.0)
        half = float(np.hypot(t.ppf((1 + LEVEL) / 2, self.freedom) * spread, apart))
        return Forecast(middle, middle - half, middle + half)


def _law(law: Sequence[float], params: Any, tokens: Any) -> Any:
    floor, a, alpha, b, beta = law
    return floor + a * params**-alpha + b * tokens**-beta


def fit(measured: Sequence[Measured]) -> Law:
    """The law of one design. ValueError where there are fewer trainings, or combinations of size and tokens, than the
    law has numbers.

    >>> points = [Measured(n, d, 2 + n**-0.5 + d**-0.3) for n in (1e2, 1e3, 1e4) for d in (1e3, 1e4, 1e5)]
    >>> round(fit(points).loss(1e6, 1e7), 3)
    2.009
    """
    import numpy as np

    params, tokens, losses = (
        np.array([getattr(m, name) for m in measured], dtype=np.float64) for name in ("params", "tokens", "loss")
    )
    if not len(measured):
        raise ValueError("extrapolation: nothing was measured")
    of_size, of_tokens = (varied(measured, name) for name in ("params", "tokens"))
    needed = 1 + 2 * of_size + 2 * of_tokens
    if len(measured) < needed + 1 or needed == 1:
        raise ValueError(
            f"extrapolation: {counted(len(measured), 'training')} at {counted(len(set(params)), 'size')} and "
            f"{numbers_of_tokens(len(set(tokens)))}; the law needs two or more of one of them, and "
            f"{max(needed, 3) + 1} trainings or more"
        )
    unit = float(np.exp(np.log(params).mean())), float(np.exp(np.log(tokens).mean()))
    x, y = params / unit[0], tokens / unit[1]
    told = [len(_groups(values)) >= TELLS for values in (params, tokens)]
    usual = [None if t else exponent for t, exponent in zip(told, USUAL, strict=True)]
    law, varies, slopes = _fitted(x, y, losses, (of_size, of_tokens), usual)
    if (cells := _cells(x, y)) < slopes.shape[1]:
        raise ValueError(
            f"extrapolation: {cells} combinations of size and tokens, and the law has {slopes.shape[1]} numbers; train "
            "every size at every number of tokens"
        )
    freedom = len(losses) - slopes.shape[1]
    residual = float(np.sqrt(((losses - _law(law, x, y)) ** 2).sum() / freedom))
    covariance = residual**2 * np.linalg.pinv(slopes.T @ slopes)
    others = []
    if (of_size and not told[0]) or (of_tokens and not told[1]):
        for exponent in RANGE:
            others.append(_fitted(x, y, losses, (of_size, of_tokens), [None if t else exponent for t in told])[0])
    rows = tuple(tuple(float(v) for v in row) for row in covariance)
    return Law(*law, unit, residual, freedom, varies, rows, tuple(others))


def _groups(values: Iterable[float]) -> list[float]:
    """Values that are more than 5% apart."""
    found: list[float] = []
    for value in sorted(values):
        if not found or value > ALIKE * found[-1]:
            found.append(float(value))
    return found


def _cells(params: Array, tokens: Array) -> int:
    """How many combinations of size and tokens there are, 5% apart."""
    places = [[bisect_right(_groups(values), value) for value in values] for values in (params, tokens)]
    return len(set(zip(*places, strict=True)))


def _fitted(
    x: Array, y: Array, losses: Array, terms: tuple[bool, bool], exponents: Sequence[float | None]
) -> tuple[tuple[float, float, float, float, float], tuple[bool, ...], Array]:
    """(floor, a, alpha, b, beta) in scaled units, which of them were fitted, and the slopes (trainings, fitted) of the
    law in these. `terms` (of size, of tokens) are there or not; their `exponents` are given, or None. Floor and factors
    are exponentials, so they stay above 0."""
    import numpy as np
    from scipy.optimize import least_squares

    spread = max(float(losses.max() - losses.min()), 1e-6)
    kept = np.array([True, terms[0], terms[0] and exponents[0] is None, terms[1], terms[1] and exponents[1] is None])

    def law(free: Array) -> tuple[float, float, float, float, float]:
        full = np.array([0.0, -np.inf, exponents[0] or 0.0, -np.inf, exponents[1] or 0.0])
        full[kept] = free
        floor, a, b = np.exp(full[[0, 1, 3]])
        return float(floor), float(a), float(full[2]), float(b), float(full[4])

    def errors(free: Array) -> Array:
        difference: Array = _law(law(free), x, y) - losses
        return difference

    def slopes(free: Array) -> Array:
        floor, a, alpha, b, beta = law(free)
        size, data = a * x**-alpha, b * y**-beta
        columns = [np.full_like(x, floor), size, -size * np.log(x), data, -data * np.log(y)]
        return np.stack(columns, axis=1)[:, kept]

    low = np.array([-np.inf, -np.inf, SMALLEST, -np.inf, SMALLEST])[kept]
    high = np.array([np.log(losses.min()), 50.0, STEEPEST, 50.0, STEEPEST])[kept]
    found = []
    for share, alpha, beta in STARTS:
        start = [np.log(share * losses.min()), np.log(spread / 2), alpha, np.log(spread / 2), beta]
        found.append(
            least_squares(
                errors, np.array(start)[kept], jac=slopes, bounds=(low, high), loss="huber",
                f_scale=max(HUBER, spread * 1e-2), x_scale="jac", max_nfev=300,
            )
        )  # fmt: skip
    best = min(found, key=lambda result: float(result.cost)).x
    return law(best), tuple(bool(k) for k in kept), slopes(best)


@dataclass(frozen=True)
class Check:
    """A training that was left out, and what the others forecast for it."""

    measured: Measured
    forecast: Forecast

    @property
    def inside(self) -> bool:
        return self.forecast.low <= self.measured.loss <= self.forecast.high


def left_out(measured: Sequence[Measured]) -> list[Check]:
    """Forecasts for the trainings of the largest size (of the most tokens, where there is one size) by the others.
    ValueError where these do not tell a law in what is left out."""
    along, what = ("params", "sizes") if varied(measured, "params") else ("tokens", "numbers of tokens")
    most = max((getattr(m, along) for m in measured), default=0)
    left = [m for m in measured if getattr(m, along) * ALIKE >= most]
    others = [m for m in measured if getattr(m, along) * ALIKE < most]
    if not varied(others, along):
        raise ValueError(f"extrapolation: fewer than two {what} are left; the check takes three or more")
    law = fit(others)
    return [Check(m, law.forecast(m.params, m.tokens)) for m in left]


def numbers_of_tokens(number: int) -> str:
    """
    >>> numbers_of_tokens(1), numbers_of_tokens(3)
    ('1 number of tokens', '3 numbers of tokens')
    """
    return f"{counted(number, 'number')} of tokens"


def varied(measured: Sequence[Measured], name: str) -> bool:
    """Whether params, or tokens, are not all one."""
    return len(_groups(getattr(m, name) for m in measured)) > 1
