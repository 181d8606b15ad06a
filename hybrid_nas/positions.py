"""What a layer of attention is worth at each depth: hybrids that differ in where their layers stand.

Depth is cut into the first layer, four quarters of the inner layers, and the last layer. A design's row holds the share
of its attention (or parallel) layers in each part; how many there are and every other choice are adjusted for, by the
model of `effects`. The figure of a part is what a stack gains or loses with all of these layers there, against
standing equally in all parts that any design uses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hybrid_nas.choices import settings_of
from hybrid_nas.effects import Effects
from hybrid_nas.noise import Noise, proxy_id, trainings
from hybrid_nas.predicted import QUANTITY, Predictions, predicted
from hybrid_nas.published import WHERE_LAYERS_STAND
from hybrid_nas.trial import Trial

PARTS = ("first layer", "first quarter", "second quarter", "third quarter", "last quarter", "last layer")
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
    kind: str
    quantity: str
    n: int
    parts: tuple[Worth, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    complete = [trial for trial in trials if trial.state == "complete"]
    values = trainings(complete, quantity)
    if foretold is None:
        foretold = predicted(trials) if quantity == QUANTITY else Predictions()
    found = (
        _map(kind, letters, trials, values, noise[quantity], quantity, foretold) for kind, letters in KINDS.items()
    )
    return tuple(one for one in found if one is not None)


def _map(
    kind: str, letters: str, trials: list[Trial], values: Any, noise: Noise, quantity: str, foretold: Predictions
) -> PositionMap | None:
    import numpy as np

    layouts: dict[str, str] = {}

    def settings(trial: Trial) -> dict[str, str] | None:
        layout = trial.proxy.layout
        count = sum(layout.count(letter) for letter in letters)
        others = [name for name, own in KINDS.items() if name != kind and set(own) & set(layout)]
        if not 0 < count < len(layout) or others:
            return None
        layouts[proxy_id(trial)] = layout
        told = {k: v for k, v in settings_of(trial.design).items() if k not in ("ratio", *WHERE_LAYERS_STAND)}
        return {**told, "layers": str(count)}

    effects = Effects(trials, values, noise, settings, foretold)
    proxies = list(effects.designs)
    if not proxies:
        return None
    shares = np.zeros((len(proxies), len(PARTS)))
    for row, proxy in enumerate(proxies):
        layout = layouts[proxy]
        for layer, letter in enumerate(layout):
            if letter in letters:
                shares[row, PARTS.index(part_of(layer, len(layout)))] += 1
    counts = (shares > 0).sum(0)
    used = tuple(part for part, n in zip(PARTS, counts, strict=True) if n)
    shares = shares[:, counts > 0] / shares.sum(1, keepdims=True)
    adjusted = effects.coded.adjustment(np.ones(len(effects.coded.row), dtype=bool))
    fit = effects.fit(np.hstack([shares, adjusted]), proxies, used)
    means = [sum(seeds.values()) / len(seeds) for seeds in effects.trainings.values()]
    span = max(means) - min(means)
    rows = []
    for part, n in zip(PARTS, counts, strict=True):
        contrast = None
        if fit is not None and part in used and len(used) > 1:
            contrast = fit.contrast({p: 1.0 if p == part else -1 / (len(used) - 1) for p in used})
        if contrast is None or contrast.half_width > span:  # wider than all that the designs differ: it says nothing
            rows.append(Worth(part, int(n), None, None, None))
        else:
            value, half = contrast.difference, contrast.half_width
            rows.append(Worth(part, int(n), value, value - half, value + half))
    return PositionMap(kind, quantity, len(proxies), tuple(rows))
