"""The probe `mix`: one model of parallel layers that learns, layer by layer, how much of each half it wants.

A layer's output is alpha M(x) + (1 - alpha) A(x), M and A the normed heads of Mamba-2 and of attention, alpha the
sigmoid of one learned number [arXiv:2510.04800, Fig. 8]. Both halves are normed, so alpha compares like with like.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_nas.architecture import Architecture, ParallelHybrid, canonical_json
from hybrid_nas.budget import Budget
from hybrid_nas.data import Corpus, open_corpus
from hybrid_nas.design import Design, Ratio, architecture_of_layout
from hybrid_nas.evaluate import evaluate
from hybrid_nas.layer_order import LayerRun
from hybrid_nas.model import Model, build
from hybrid_nas.parallel import ParallelHybridModule
from hybrid_nas.proxy import Diverged, Proxy, train
from hybrid_nas.scale import Scale

PARALLEL = Design(family="intra", ratio=Ratio(1, 0), norm="group", scale="none", fusion="add", output="joint")
"""Every layer parallel, both halves normed and added, one projection after: alpha weighs all that is written."""


class MixedModule(ParallelHybridModule):
    """A parallel layer whose halves have the weights alpha and 1 - alpha. Begins at one half each."""

    def __init__(self, mixer: ParallelHybrid, width: int) -> None:
        super().__init__(mixer, width)
        self.mix = nn.Parameter(torch.zeros(1))

    def scales(self, x: Tensor, norm: Tensor | None) -> tuple[Tensor, Tensor]:
        del x, norm
        alpha = torch.sigmoid(self.mix)
        return alpha, 1 - alpha


@dataclass(frozen=True)
class MixProbe:
    """What a probe trains: `layers` layers at `scale`, for `budget`, on the corpus of `data` (see `evaluate`). What the
    recurrent layers of the sweep and the parallel layers are otherwise is `design`'s."""

    layers: int
    scale: Scale
    budget: Budget
    data: Mapping[str, Any] | None = None
    design: Design = PARALLEL

    def __post_init__(self) -> None:
        if self.layers < 2:
            raise ValueError(f"probe mix: layers can be ordered from 2 on, found {self.layers}")
        if self.budget.recall_share == 1:
            raise ValueError("probe mix: layers are compared by their loss on text, found recall_share 1; write less")

    def parallel(self) -> Architecture:
        """The model that learns its mix."""
        return architecture_of_layout("H" * self.layers, self.design, self.scale)

    def at(self, layer: int) -> Architecture:
        """The stack of Mamba-2 with attention at `layer` alone."""
        layout = "M" * layer + "A" + "M" * (self.layers - layer - 1)
        return architecture_of_layout(layout, self.design, self.scale)

    def jobs(self, seeds: int) -> list[tuple[int, int | None]]:
        """(seed, layer) of every training, seed by seed, so that a probe cut short is whole in fewer seeds."""
        return [(seed, layer) for seed in range(seeds) for layer in (None, *range(self.layers))]

    def to_dict(self) -> dict[str, Any]:
        """Everything that changes a result."""
        return {
            "layers": self.layers,
            "scale": self.scale.to_dict(),
            "budget": self.budget.to_dict(),
            "data": None if self.data is None else dict(self.data),
            "design": self.design.to_dict(),
        }

    @property
    def identity(self) -> str:
        """Eight hex digits that change with anything that changes a result; not with the number of seeds."""
        return hashlib.sha256(canonical_json(self.to_dict()).encode()).hexdigest()[:8]

    def run(self, seed: int, layer: int | None, device: str = "auto") -> LayerRun:
        """One training; what goes wrong with it is its `failure`."""
        if layer is None:
            return self._mixed(seed, device)
        context = self.scale.context
        outcome = evaluate(self.at(layer), context, self.budget, self.data, seed, lambda progress: True, device)
        return LayerRun(
            seed=seed,
            layer=layer,
            loss=outcome.values.get("loss"),
            recall=outcome.values.get("recall"),
            failure=outcome.failure,
            device=outcome.device,
            seconds=outcome.seconds,
            implementations=outcome.implementations,
        )

    def _mixed(self, seed: int, device: str) -> LayerRun:
        started = time.perf_counter()
        on = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        proxy = Proxy(open_corpus(Corpus.from_dict(dict(self.data or {}))), self.scale.context, self.budget, seed)
        model = build(self.parallel(), generator=seed, mamba_init=self.budget.mamba_init)
        mixed = mixed_layers(model.to(on))
        run = LayerRun(seed=seed, layer=None, device=str(on), implementations=model.implementations())
        try:
            for _ in train(model, model.architecture, proxy, on):
                pass
        except Diverged as error:
            return replace(run, failure=str(error), seconds=time.perf_counter() - started)
        return replace(
            run,
            loss=proxy.loss(model, on),
            recall=proxy.recall(model, on),
            mamba=tuple(float(torch.sigmoid(layer.mix.detach())) for layer in mixed),
            seconds=time.perf_counter() - started,
        )


def mixed_layers(model: Model) -> list[MixedModule]:
    """Give every parallel layer of `model` an alpha of its own, its weights kept; returns the layers."""
    found = []
    for block in model.blocks:
        assert isinstance(block.mixer, ParallelHybridModule)
        mixed = MixedModule(block.mixer.mixer, model.architecture.width).to(model.embedding.device)
        mixed.load_state_dict({**block.mixer.state_dict(), "mix": mixed.mix.detach()})
        block.mixer = mixed
        found.append(mixed)
    return found
