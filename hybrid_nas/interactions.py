"""Where what one choice does depends on another: pairs of choices whose effects do not add up.

The model is that of `effects` with a mean for each pair of options (a cell) in place of two main effects. Whether
the cells depart from additivity is one F test a pair of choices, corrected by Holm over all pairs. Where they do, the
difference between differences that stands out most is named, with Scheffé's interval, which holds for the pick of all.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from hybrid_nas.accuracy import possible
from hybrid_nas.effects import Effects, Fit, holm
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.student import f_p, f_quantile, student
from hybrid_nas.units import bare, readable

ALPHA = 0.05
JOIN = " × "


@dataclass(frozen=True)
class Cell:
    """The mean of the designs with two options, other choices balanced, and its own 95% interval; `n` proxies."""

    first: str
    second: str
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Interaction:
    """`difference`: how much more `first[0]` against `first[1]` is at `second[0]` than at `second[1]`."""

    choices: tuple[str, str]
    quantity: str
    p_holm: float
    decided: bool
    first: tuple[str, str]
    second: tuple[str, str]
    difference: float
    low: float
    high: float
    n: int
    cells: tuple[Cell, ...]

    @property
    def statement(self) -> str:
        unit = QUANTITIES[self.quantity].unit if self.quantity in QUANTITIES else ""
        (a, b), (c, d) = self.first, self.second
        one, two = self.choices
        interval = f"[{bare(self.low, unit, True)}, {bare(self.high, unit, True)}]"
        return (
            f"What {one} does to {self.quantity} depends on {two}: {a} against {b} differs by "
            f"{readable(self.difference, unit, signed=True)} {interval} between {two} {c} and {two} {d}."
        )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "statement": self.statement}


def interactions(effects: Effects, quantity: str) -> tuple[Interaction, ...]:
    """Every pair of choices that the trials can test, the surest first."""
    found = []
    for pair in combinations(sorted(effects.choices), 2):
        tested = _test(effects, pair)
        if tested is not None:
            found.append((pair, *tested))
    adjusted = holm([p for _, p, _, _ in found])
    rows = [_described(quantity, pair, p, fit, basis) for (pair, _, fit, basis), p in zip(found, adjusted, strict=True)]
    return tuple(sorted((row for row in rows if row), key=lambda row: (row.p_holm, row.choices)))


def _test(effects: Effects, pair: tuple[str, str]) -> tuple[float, Fit, Any] | None:
    """p of additivity, the fit of cell means, and the contrasts of cells that are 0 where effects add up."""
    import numpy as np

    one, two = pair
    coded = effects.coded
    kept = coded.having(one, two)
    width = len(coded.options[two])
    found, cell = np.unique(coded.column(one)[kept] * width + coded.column(two)[kept], return_inverse=True)
    pairs = [(coded.options[one][at // width], coded.options[two][at % width]) for at in found.tolist()]
    firsts, seconds = ({options[i] for options in pairs} for i in (0, 1))
    if min(len(firsts), len(seconds)) < 2:
        return None
    options = tuple(JOIN.join(pair) for pair in pairs)
    x = coded.shares(kept, cell, len(options))
    fit = effects.fit(np.hstack([x, coded.adjustment(kept, pair)]), coded.rows(kept), options)
    if fit is None:
        return None
    main = np.array(
        [[float(_split(cell)[0] == o) for o in sorted(firsts)] + [float(_split(cell)[1] == o) for o in sorted(seconds)]
         for cell in options]
    )  # fmt: skip
    u, singular, _ = np.linalg.svd(main)
    basis = _pad(u[:, int((singular > 1e-9).sum()) :], len(fit.beta))
    if basis.shape[1] == 0 or np.abs(fit.gram @ basis - basis).max() > 1e-6:
        return None
    estimate, covariance = basis.T @ fit.beta, basis.T @ fit.covariance @ basis
    if np.linalg.matrix_rank(covariance) < len(estimate):
        return None
    f = float(estimate @ np.linalg.solve(covariance, estimate)) / len(estimate)
    return f_p(f, len(estimate), fit.df), fit, basis


def _pad(basis: Any, rows: int) -> Any:
    import numpy as np

    return np.vstack([basis, np.zeros((rows - len(basis), basis.shape[1]))])


def _split(cell: str) -> tuple[str, str]:
    first, _, second = cell.partition(JOIN)
    return first, second


def _described(quantity: str, pair: tuple[str, str], p: float, fit: Fit, basis: Any) -> Interaction | None:
    cells = [_split(cell) for cell in fit.options]
    firsts, seconds = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
    best = None
    for a, b in combinations(firsts, 2):
        for c, d in combinations(seconds, 2):
            if not {(a, c), (a, d), (b, c), (b, d)} <= set(cells):
                continue
            signs = (((a, c), 1.0), ((b, c), -1.0), ((a, d), -1.0), ((b, d), 1.0))
            contrast = fit.contrast({JOIN.join(cell): sign for cell, sign in signs})
            if contrast is None or contrast.error == 0:
                continue
            score = abs(contrast.difference) / contrast.error
            if best is None or score > best[0]:
                best = score, contrast, (a, b), (c, d)
    if best is None:
        return None
    _, contrast, first, second = best
    unit = QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
    q = basis.shape[1]
    half = math.sqrt(q * f_quantile(q, fit.df)) * contrast.error
    means = []
    for (a, c), name in zip(cells, fit.options, strict=True):
        own = fit.contrast({name: 1.0})
        if own is not None:
            margin = student(own.df) * own.error
            low, value, high = (
                _level(x, unit) for x in (own.difference - margin, own.difference, own.difference + margin)
            )
            means.append(Cell(a, c, value, low, high, own.n))
    at = contrast.difference
    low, difference, high = (possible(value, unit, 2.0) for value in (at - half, at, at + half))
    return Interaction(
        pair, quantity, p, p < ALPHA, first, second, difference, low, high, contrast.n, tuple(means)
    )  # fmt: skip


def _level(value: float, unit: str) -> float:
    """A mean as far as it can be: an accuracy lies from 0 to 1."""
    return min(1.0, max(0.0, value)) if unit == "accuracy" else value
