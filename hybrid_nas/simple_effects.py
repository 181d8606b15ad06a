"""What a difference between two options of a choice is at each option of another: the simple effects.

A main effect is an average over the other choices. Where the difference varies over the options of another choice by
more than the average itself, beyond the noise, no design gets the average and no single figure holds. The model is that
of `effects` with a mean for each pair of options; an option to which the other choice does not apply (pure Mamba-2 has
no `position`) is set against each option of the other in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from hybrid_nas.accuracy import possible
from hybrid_nas.effects import Contrast, Effects, Fit, holm

ALPHA = 0.05
MIN_TRAININGS = 3
JOIN = " × "
NOWHERE = "–"  # of a choice that does not apply


@dataclass(frozen=True)
class Simple:
    """`better` less `worse` of a pair at one option of the other choice, more than 0 where `better` is better there.

    `clear`: beyond the noise, by Holm's correction over all that is told of the choice; where one of the two has
    fewer than three trainings there (`thin`) it is never. `n` counts designs.
    """

    option: str
    difference: float
    low: float
    high: float
    n: int
    p: float
    thin: bool
    clear: bool = False


@dataclass(frozen=True)
class Split:
    """The choice on whose options a pair depends, and the pair at each of them."""

    other: str
    parts: tuple[Simple, ...]

    @property
    def agreed(self) -> bool:
        """Whether the better option is better at every option of the other choice, beyond the noise."""
        return all(part.clear and part.difference > 0 for part in self.parts)


def splits(
    effects: Effects,
    choice: str,
    pairs: Sequence[tuple[str, str]],
    averages: Sequence[float],
    claimed: Sequence[bool],
    sign: float,
    unit: str,
) -> list[Split | None]:
    """For each pair (better, worse) whose mean difference is the average given, the choice that it depends on most, or
    None where a single figure serves, or nothing is sure at any option and the mean was not `claimed` either.
    `sign`: -1 where more is better.

    Where the other choice applies to one of the two alone and was seen there with one option, the average is half a
    guess: the figure at that option stands in its place, if it is further off than half the average."""
    tested: list[tuple[int, Split, float, float]] = []
    for other in effects.choices:
        fit, sizes = _cells(effects, choice, other) if other != choice else (None, {})
        if fit is None:
            continue
        for i, pair in enumerate(pairs):
            parts, gap, p = _tested(fit, sizes, pair, effects.choices[other], sign, unit)
            if len(parts) == 1 and not parts[0].thin:
                gap, p = 2 * abs(parts[0].difference - averages[i]), parts[0].p
            if parts and gap:
                tested.append((i, Split(other, parts), gap, p))
    best: dict[int, tuple[float, Split]] = {}
    for (i, split, gap, p), adjusted in zip(tested, holm([row[3] for row in tested]), strict=True):
        if adjusted < ALPHA and gap > abs(averages[i]) and (i not in best or p < best[i][0]):
            best[i] = p, split
    corrected = iter(holm([part.p for _, split in best.values() for part in split.parts]))
    told = {
        i: replace(
            split, parts=tuple(replace(part, clear=next(corrected) < ALPHA and not part.thin) for part in split.parts)
        )
        for i, (_, split) in best.items()
    }
    shown = {i: split for i, split in told.items() if claimed[i] or any(part.clear for part in split.parts)}
    return [shown.get(i) for i in range(len(pairs))]


def _cells(effects: Effects, choice: str, other: str) -> tuple[Fit | None, dict[str, int]]:
    """The fit of a mean for each pair of options, and the trainings that each has."""
    import numpy as np

    coded = effects.coded
    kept = coded.having(choice)
    width = len(coded.options[other]) + 1  # -1: the other choice does not apply
    code, cell = np.unique(coded.column(choice)[kept] * width + coded.column(other)[kept] + 1, return_inverse=True)
    elsewhere = (NOWHERE, *coded.options[other])
    options = tuple(_cell(coded.options[choice][at // width], elsewhere[at % width]) for at in code.tolist())
    sizes = dict.fromkeys(options, 0)
    for row, at in np.unique(np.stack([coded.row[kept], cell]), axis=1).T.tolist():
        sizes[options[at]] += effects.sizes[coded.proxies[row]]
    x = coded.shares(kept, cell, len(options))
    return effects.fit(np.hstack([x, coded.adjustment(kept, (choice, other))]), coded.rows(kept), options), sizes


def _cell(option: str, other: str) -> str:
    return option + JOIN + other


def _tested(
    fit: Fit, sizes: dict[str, int], pair: tuple[str, str], others: Sequence[str], sign: float, unit: str
) -> tuple[tuple[Simple, ...], float, float]:
    """The pair at each option of the other choice, the largest difference between two of these, and its p."""
    parts: list[tuple[Simple, dict[str, float]]] = []
    for option in others:
        sides = [next((c for c in (_cell(o, option), _cell(o, NOWHERE)) if c in sizes), None) for o in pair]
        if None in sides or all(side == _cell(o, NOWHERE) for o, side in zip(pair, sides, strict=True)):
            continue
        better, worse = (str(side) for side in sides)
        weights = {better: -sign, worse: sign}
        contrast = fit.contrast(weights)
        if contrast is not None:
            thin = min(sizes[better], sizes[worse]) < MIN_TRAININGS
            parts.append((_simple(option, contrast, unit, thin), weights))
    gaps = []
    for (_, one), (_, two) in combinations(parts, 2):
        weights = {cell: one.get(cell, 0.0) - two.get(cell, 0.0) for cell in {*one, *two}}
        contrast = fit.contrast({cell: weight for cell, weight in sorted(weights.items()) if weight})
        if contrast is not None and contrast.error > 0:
            gaps.append((contrast.p, abs(contrast.difference)))
    p, gap = min(gaps, default=(1.0, 0.0))
    return tuple(part for part, _ in parts), gap, min(1.0, p * len(gaps))


def _simple(option: str, contrast: Contrast, unit: str, thin: bool) -> Simple:
    at, half = contrast.difference, contrast.half_width
    low, value, high = (possible(x, unit) for x in (at - half, at, at + half))
    return Simple(option, value, low, high, contrast.n, contrast.p, thin)
