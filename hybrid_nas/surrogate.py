"""A model of quality over a space's designs, from the trials so far: a Gaussian process on the answers that spell them.

Its kernel is a sum of main effects, interactions of two choices, and a rest in which two designs are alike only as far
as all their answers are. How much each part weighs, and the noise, is not chosen: a few trials cannot tell, so the
models of all `WEIGHTS` and `NOISES` have a say, each by how likely it makes the trials. Answers that are amounts (a
ratio, a state size) are alike by their distance, others if they are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Rows = NDArray[np.int64]

LENGTH = 0.5  # of an amount's range: how far likeness reaches
WEIGHTS = ((1.0, 0.0, 0.0), (0.7, 0.3, 0.0), (0.5, 0.25, 0.25), (0.3, 0.3, 0.4), (0.0, 0.5, 0.5), (0.0, 0.0, 1.0))
NOISES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
UNHEARD = 0.01  # of the likelihood of the likeliest: models below it are left out, to save time
EVEN, NOISE = (0.5, 0.25, 0.25), 0.05  # what is taken for granted before any trial has ended
PRIOR = 4.0  # the scale of the whole is integrated out as if so many values of scale 1 had been seen before
MOST = 400
"""Trials that a model is fitted to, the latest: its work grows with their cube."""


@dataclass(frozen=True)
class Spellings:
    """Answers as numbers, (choices, designs): `code` is equal for equal answers; `amount` from 0 to 1 by rank where
    the choice is of amounts, NaN where the answer is none."""

    code: Rows
    amount: Array

    @classmethod
    def of(cls, spellings: Sequence[Mapping[str, object]]) -> Spellings:
        """A choice that a design does not have to make is an answer of its own."""
        names = sorted({name for answers in spellings for name in answers})
        codes, amounts = [], []
        for name in names:
            answers = [answers.get(name) for answers in spellings]
            known = {answer: i for i, answer in enumerate(dict.fromkeys(answers))}
            if len(known) < 2:
                continue
            codes.append([known[answer] for answer in answers])
            values = {answer: amount(answer) for answer in known if answer is not None}
            steps = {value: i for i, value in enumerate(sorted({v for v in values.values() if v is not None}))}
            if None in values.values() or len(steps) < 3:
                amounts.append([np.nan] * len(answers))
            else:
                place = {
                    answer: steps[value] / (len(steps) - 1) for answer, value in values.items() if value is not None
                }
                amounts.append([place.get(answer, np.nan) for answer in answers])
        shape = (len(codes), len(spellings))
        return cls(np.array(codes, dtype=np.int64).reshape(shape), np.array(amounts, dtype=float).reshape(shape))

    def alike(self, rows: Rows, columns: Rows) -> tuple[Array, Array, Array]:
        """How alike two designs are, from 0 to 1: in main effects, in pairs of choices, in all at once."""
        count = len(self.code)
        total, squares, rest = (np.zeros((len(rows), len(columns))) for _ in range(3))
        for code, at in zip(self.code, self.amount, strict=True):
            one = (code[rows][:, None] == code[columns][None]).astype(float)
            near = np.exp(-0.5 * ((at[rows][:, None] - at[columns][None]) / LENGTH) ** 2)
            one = np.where(np.isnan(near), one, near)
            total += one
            squares += one**2
            rest += np.log(np.maximum(one, 1e-3)) / 2
        if count < 2:
            return total, total, total
        return total / count, (total**2 - squares) / (count * (count - 1)), np.exp(rest)


def amount(answer: object) -> float | None:
    """An answer as a number, if it is one: of a ratio, the share of its first part."""
    text = str(answer)
    try:
        if ":" in text:
            left, right = (int(part) for part in text.split(":"))
            return left / (left + right)
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return None


def posterior(
    spellings: Spellings, rows: Sequence[int], columns: Sequence[int], values: Array, variances: Array
) -> tuple[Array, Array]:
    """Mean and deviation of quality for the designs of `columns`, given `values` of those in `rows`, each with a
    variance of its own (what is foretold of a stopped training) on top of the noise that is found."""
    at, to = np.asarray(rows)[-MOST:], np.asarray(columns)
    values, variances = values[-MOST:], variances[-MOST:]
    center, scale = float(np.median(values)), float(values.std()) or 1.0
    y, own, n = (values - center) / scale, variances / scale**2, len(values)
    parts = spellings.alike(at, at)
    models = []
    for weights, noise in product(WEIGHTS, NOISES):
        root = np.linalg.cholesky(sum(w * part for w, part in zip(weights, parts, strict=True)) + np.diag(noise + own))
        white = np.linalg.solve(root, y)
        fit = float(white @ white)
        likelihood = -float(np.log(np.diag(root)).sum()) - (n + PRIOR) / 2 * np.log(PRIOR + fit)
        models.append((likelihood, weights, root, white, (PRIOR + fit) / (PRIOR + n)))
    best = max(likelihood for likelihood, *_ in models)
    total, mean, square = 0.0, np.zeros(len(to)), np.zeros(len(to))
    parts = spellings.alike(at, to)
    for likelihood, weights, root, white, spread in models:
        share = float(np.exp(likelihood - best))
        if share > UNHEARD:
            across = np.linalg.solve(root, sum(w * part for w, part in zip(weights, parts, strict=True)))
            told = across.T @ white
            total += share
            mean += share * told
            square += share * (told**2 + spread * np.maximum(sum(weights) - (across**2).sum(0), 1e-12))
    mean, square = mean / total, square / total
    return center + scale * mean, scale * np.sqrt(np.maximum(square - mean**2, 1e-12))


def doubt(spellings: Spellings, rows: Sequence[int], columns: Sequence[int]) -> Array:
    """How little the designs of `rows` will tell of those of `columns`, whatever they turn out to be: 0 to 1."""
    at, to = np.asarray(rows[-MOST:]), np.asarray(columns)
    if not len(at):
        return np.ones(len(to))
    known, across = (
        sum(w * part for w, part in zip(EVEN, spellings.alike(at, other), strict=True)) for other in (at, to)
    )
    told: Array = np.asarray(across * np.linalg.solve(known + NOISE * np.eye(len(at)), across)).sum(0)
    return 1 - told
