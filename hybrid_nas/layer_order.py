"""Which layers want attention: what trainings say about it, from one all-parallel model and from a position sweep.

The two are compared as orders of the layers, with an interval over seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hybrid_nas.rank import spearman

DRAWS = 2000
EXHAUSTIVE = 5
FEWEST = 3  # seeds for an interval
"""Up to so many seeds every resample is taken; beyond, DRAWS of them."""


@dataclass(frozen=True)
class LayerRun:
    """One training. With `layer` None it is the model of parallel layers, and `mamba` holds each layer's weight on its
    Mamba-2 half, from 0 to 1 (the attention has the rest); else the recurrent stack with attention at `layer` alone.
    `loss` is held out, in nats per token; None where the training failed, and `failure` says why."""

    seed: int
    layer: int | None
    loss: float | None = None
    recall: float | None = None
    mamba: tuple[float, ...] | None = None
    failure: str | None = None
    device: str = "cpu"
    seconds: float = 0.0
    implementations: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LayerRun:
        values = {each.name: data[each.name] for each in fields(cls)}
        return cls(**{**values, "mamba": None if data["mamba"] is None else tuple(data["mamba"])})


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho between two orders of the layers, of seed means; 95% by resampling whole seeds, None with
    fewer than three, whose resamples are too few to be an interval."""

    value: float
    low: float | None
    high: float | None
    seeds: int

    def __str__(self) -> str:
        """
        >>> str(Agreement(0.5, 0.25, 0.75, 3))
        '0.50 [0.25, 0.75], n = 3 seeds'
        """
        if self.low is None or self.high is None:
            return f"{self.value:.2f}, n = {self.seeds} seed{'' if self.seeds == 1 else 's'}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}], n = {self.seeds} seeds"


@dataclass(frozen=True)
class LayerOrder:
    """The runs of a probe of `layers` layers, by what they say. Only seeds whose trainings all ended count."""

    layers: int
    runs: tuple[LayerRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with a loss at every position and a weight for every layer."""
        wanted = {None, *range(self.layers)}
        return tuple(
            seed
            for seed in sorted({run.seed for run in self.runs})
            if {run.layer for run in self.runs if run.seed == seed and run.loss is not None} == wanted
        )

    def attention(self, seeds: Sequence[int]) -> list[float]:
        """Each layer's mean weight on its attention half."""
        weights = [run.mamba for s in seeds for run in self.runs if run.seed == s and run.layer is None and run.mamba]
        return [1 - sum(layer) / len(layer) for layer in zip(*weights, strict=True)]

    def losses(self, seeds: Sequence[int]) -> list[float]:
        """The mean loss of the stack with attention at each layer alone."""
        found = {(run.seed, run.layer): run.loss for run in self.runs if run.loss is not None}
        return [sum(found[seed, layer] for seed in seeds) / len(seeds) for layer in range(self.layers)]

    def wanted(self) -> list[int]:
        """Layers, the one with the most weight on attention first."""
        weights = self.attention(self.seeds)
        return sorted(range(len(weights)), key=lambda layer: (-weights[layer], layer))

    def agreement(self) -> Agreement | None:
        """How far the weights order the layers as the sweep does: 1 where more weight on attention goes with a lower
        loss throughout. None without a finished seed, or where an order says nothing."""
        if not self.seeds:
            return None
        value = self.rho(self.seeds)
        if value is None:
            return None
        if len(self.seeds) < FEWEST:
            return Agreement(value, None, None, len(self.seeds))
        resampled = [rho for seeds in self._resamples() if (rho := self.rho(seeds)) is not None]
        ordered = sorted(resampled)
        low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0.025, 0.975))
        return Agreement(value, low, high, len(self.seeds))

    def rho(self, seeds: Sequence[int]) -> float | None:
        """Spearman's rho of the two orders, of the means over `seeds`. None where an order says nothing."""
        found = spearman(self.attention(seeds), [-loss for loss in self.losses(seeds)], draws=50)
        return None if found is None else found.value

    def _resamples(self) -> list[tuple[int, ...]]:
        seeds = self.seeds
        if len(seeds) <= EXHAUSTIVE:
            return list(itertools.product(seeds, repeat=len(seeds)))
        import numpy as np

        drawn = np.random.default_rng(0).choice(seeds, size=(DRAWS, len(seeds)))
        return [tuple(int(seed) for seed in row) for row in drawn]

    def to_dict(self) -> dict[str, Any]:
        agreement, seeds = self.agreement(), self.seeds
        return {
            "layers": self.layers,
            "seeds": list(seeds),
            "attention": self.attention(seeds) if seeds else [],
            "position_loss": self.losses(seeds) if seeds else [],
            "order": self.wanted() if seeds else [],
            "spearman": None if agreement is None else asdict(agreement),
            "runs": [run.to_dict() for run in self.runs],
        }
