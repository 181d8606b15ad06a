"""What one layer of attention is worth at each depth: hybrids that differ in where, and how many, their layers are.

Depth is cut into the first layer, four quarters of the inner layers, and the last layer. A design's row holds how many
attention (or parallel) layers it has in each part, and the model is that of `effects`: each layer adds what it is worth
in its part, a curve in the number of layers takes up that further ones are worth less, and every other choice is
adjusted for. The figure of a part is what one more layer there, in place of a recurrent one, does to a stack that has
as many as these designs have on average. Where all have the same number, designs without any are taken in; where there
are none of these either, only differences between depths can be told, against one layer elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hybrid_nas.accuracy import possible
from hybrid_nas.choices import settings_of
from hybrid_nas.effects import Contrast, Effects, Fit, Weights
from hybrid_nas.noise import Noise, Trainings, proxy_id, trainings
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.predicted import QUANTITY, Predictions, predicted
from hybrid_nas.published import WHERE_LAYERS_STAND
from hybrid_nas.trial import Trial

PARTS = ("first layer", "first quarter", "second quarter", "third quarter", "last quarter", "last layer")
INNER = ("second quarter", "third quarter")
KINDS = {"attention": "AS", "parallel": "H"}


@dataclass(frozen=True)
class Worth:
    """`effect` in the quantity's own direction; None where the trials cannot tell. `n`: designs with a layer there."""

    part: str
    n: int
    effect: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PositionMap:
    """`against` is what a layer of the part is set against, `layers` how many of them its designs have: from, to."""

    kind: str
    quantity: str
    n: int
    parts: tuple[Worth, ...]
    against: str
    layers: tuple[int, int]

    @property
    def told(self) -> bool:
        return any(part.effect is not None for part in self.parts)

    @property
    def caption(self) -> str:
        few, many = self.layers
        have = f"{few}" if few == many else f"{few} to {many}"
        return (
            f"One {self.kind} layer at that depth, against {self.against}; by a model over {self.n} designs that have "
            f"{have} of them, with 95% intervals."
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Depths:
    """The model of one kind of layer. `counts`: part -> designs with a layer there; `absolute`: whether a layer can be
    set against a recurrent one."""

    effects: Effects
    fit: Fit | None
    counts: dict[str, int]
    layers: tuple[int, int]
    n: int

    @property
    def used(self) -> tuple[str, ...]:
        return tuple(part for part in PARTS if self.counts[part])

    @property
    def absolute(self) -> bool:
        return self.fit is not None and any(self.fit.contrast({part: 1.0}) is not None for part in self.used)

    def contrast(self, weights: Weights) -> Contrast | None:
        return None if self.fit is None else self.fit.contrast(weights)

    def first_layer(self) -> Contrast | None:
        """One attention layer moved from the first place to the middle half, the others staying where they are."""
        inner = [part for part in INNER if self.counts[part]]
        if not inner or not self.counts[PARTS[0]]:
            return None
        return self.contrast({PARTS[0]: -1.0, **dict.fromkeys(inner, 1 / len(inner))})


def part_of(layer: int, depth: int) -> str:
    """
    >>> [part_of(i, 6) for i in range(6)]
    ['first layer', 'first quarter', 'second quarter', 'third quarter', 'last quarter', 'last layer']
    """
    if layer == 0:
        return PARTS[0]
    if layer == depth - 1:
        return PARTS[-1]
    return PARTS[1 + (4 * (2 * layer - 1)) // (2 * (depth - 2))]


def position_maps(
    trials: Iterable[Trial], noise: dict[str, Noise], quantity: str, foretold: Predictions | None = None
) -> tuple[PositionMap, ...]:
    """A map for each kind of layer that stands among others somewhere; none where no design mixes kinds."""
    trials = list(trials)
    values = trainings([trial for trial in trials if trial.state == "complete"], quantity)
    if foretold is None:
        foretold = predicted(trials) if quantity == QUANTITY else Predictions()
    found = (_map(kind, depths(kind, trials, values, noise[quantity], foretold), quantity) for kind in KINDS)
    return tuple(one for one in found if one is not None)


def depths(kind: str, trials: list[Trial], values: Trainings, noise: Noise, foretold: Predictions) -> Depths | None:
    """None where no design has layers of this kind among recurrent ones."""
    letters = KINDS[kind]
    others = {letter for name, own in KINDS.items() if name != kind for letter in own}
    layouts: dict[str, str] = {}

    def number(layout: str) -> int:
        return sum(layout.count(letter) for letter in letters)

    mixed = {
        number(trial.proxy.layout)
        for trial in trials
        if trial.state == "complete" and not others & set(trial.proxy.layout)
        if 0 < number(trial.proxy.layout) < len(trial.proxy.layout)
    }
    least = 0 if len(mixed) == 1 else 1

    def settings(trial: Trial) -> dict[str, str] | None:
        layout = trial.proxy.layout
        if not least <= number(layout) < len(layout) or others & set(layout):
            return None
        layouts[proxy_id(trial)] = layout
        return {k: v for k, v in settings_of(trial.design).items() if k not in ("ratio", *WHERE_LAYERS_STAND)}

    effects = Effects(trials, values, noise, settings, foretold)
    proxies = list(effects.designs)
    if not mixed or not any(number(layouts[proxy]) for proxy in proxies):
        return None
    return _fitted(effects, proxies, [layouts[proxy] for proxy in proxies], letters)


def _fitted(effects: Effects, proxies: list[str], layouts: list[str], letters: str) -> Depths:
    import numpy as np

    there = np.zeros((len(proxies), len(PARTS)))
    for row, layout in enumerate(layouts):
        for layer, letter in enumerate(layout):
            if letter in letters:
                there[row, PARTS.index(part_of(layer, len(layout)))] += 1
    counts = (there > 0).sum(0)
    used = tuple(part for part, n in zip(PARTS, counts, strict=True) if n)
    numbers = there.sum(1)
    curve = (numbers - numbers[numbers > 0].mean()) ** 2
    columns = [there[:, counts > 0], np.ones((len(proxies), 1))]
    if len(set(numbers)) > 2:  # with two numbers a curve is a line
        columns.append(curve[:, None])
    adjusted = effects.coded.adjustment(np.ones(len(effects.coded.row), dtype=bool))
    fit = effects.fit(np.hstack([*columns, adjusted]), proxies, used)
    span = int(numbers[numbers > 0].min()), int(numbers.max())
    return Depths(effects, fit, {p: int(n) for p, n in zip(PARTS, counts, strict=True)}, span, int((numbers > 0).sum()))


def _map(kind: str, found: Depths | None, quantity: str) -> PositionMap | None:
    if found is None:
        return None
    unit = QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
    means = [sum(seeds.values()) / len(seeds) for seeds in found.effects.trainings.values()]
    span = max(means) - min(means)
    used, absolute = found.used, found.absolute
    rows = []
    for part in PARTS:
        contrast = None
        if part in used and (absolute or len(used) > 1):
            rest = {} if absolute else {other: -1 / (len(used) - 1) for other in used if other != part}
            contrast = found.contrast({part: 1.0, **rest})
        if contrast is None or contrast.half_width > span:  # wider than all that the designs differ: it says nothing
            rows.append(Worth(part, found.counts[part], None, None, None))
        else:
            at, half = contrast.difference, contrast.half_width
            low, value, high = (possible(x, unit) for x in (at - half, at, at + half))
            rows.append(Worth(part, found.counts[part], value, low, high))
    against = "a recurrent layer there" if absolute else f"one {kind} layer in the other parts"
    return PositionMap(kind, quantity, found.n, tuple(rows), against, found.layers)
