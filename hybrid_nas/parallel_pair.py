"""Two equal halves of one kind in parallel as a torch module: the Differential Transformer and its kin."""

from __future__ import annotations

import torch
from hybrid_nas_kernels.fuse_heads import fuse_halves
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_nas.architecture import Attention, ParallelPair
from hybrid_nas.heads import AttentionHeads, Mamba2Heads
from hybrid_nas.mixer_module import NORM_EPS, Gain, LayerCache, MambaInit, MixerModule, draw_linear, project

HALVES = ("first", "second")


class ParallelPairModule(MixerModule):
    """The halves are `first` and `second`, each with its gain and scale; the projections are as a parallel hybrid's."""

    def __init__(self, mixer: ParallelPair, width: int) -> None:
        super().__init__()
        self.mixer = mixer
        half, channels = mixer.half, mixer.channels
        self.shared = mixer.value == "joint"
        if isinstance(half, Attention):
            heads: list[AttentionHeads | Mamba2Heads] = [
                AttentionHeads(half, width),
                AttentionHeads(half, width, own_values=not self.shared),
            ]
        else:
            heads = [Mamba2Heads(half, width), Mamba2Heads(half, width)]
        self.first, self.second = heads
        if mixer.norm == "group":
            self.first_norm, self.second_norm = Gain(channels), Gain(channels)
        if mixer.scale == "vector":
            self.first_scale = nn.Parameter(torch.empty(channels))
        if mixer.scale in ("vector", "diff"):
            self.second_scale = nn.Parameter(torch.empty(channels if mixer.scale == "vector" else 1))
        if mixer.scale == "gate":
            self.gate_proj = nn.Linear(width, 2, bias=False)
        self.first_out = nn.Linear(channels * (2 if mixer.fusion == "concat" else 1), width, bias=False)
        if mixer.output == "separate":
            self.second_out = nn.Linear(channels, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        outputs, values = [], None
        for half in (self.first, self.second):
            if isinstance(half, AttentionHeads):
                y, found = half.attend(x, norm, values)
                values = found if self.shared else None
            else:
                y, gate = half.scan(x, norm)
                y = y * F.silu(gate)
            outputs.append(y)
        return self._fuse(x, norm, outputs[0], outputs[1])

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Each half's own, under its name; shared values once."""
        kept = {}
        for name, half in zip(HALVES, (self.first, self.second), strict=True):
            for part, tensor in half.cache(batch, context, device, dtype).items():
                if not (self.shared and (name, part) == ("second", "values")):
                    kept[f"{name}_{part}"] = tensor
        return kept

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        outputs, values = [], None
        for name, half in zip(HALVES, (self.first, self.second), strict=True):
            own = {part.removeprefix(f"{name}_"): tensor for part, tensor in cache.items() if part.startswith(name)}
            if isinstance(half, AttentionHeads):
                own.setdefault("values", cache["first_values"])
                y, found = half.attend_step(x, own, position, norm, values)
                values = found if self.shared else None
            else:
                y, gate = half.scan_step(x, own, position, norm)
                y = y * F.silu(gate)
            outputs.append(y)
        return self._fuse(x, norm, outputs[0], outputs[1])

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """Scales begin at 1, as if they were not there."""
        for half in (self.first, self.second):
            if isinstance(half, AttentionHeads):
                half.draw(generator)
            else:
                half.draw(generator, mamba_init)
        for weight in self.outputs():
            draw_linear(weight, generator)
            weight.data.mul_(residual_scale)
        if self.mixer.scale == "gate":
            draw_linear(self.gate_proj.weight, generator)
        for name, parameter in self.named_parameters():
            if name.rpartition("_")[2] in ("scale", "norm.weight"):
                parameter.data.fill_(1.0)

    def implementations(self, device: torch.device) -> dict[str, str]:
        return {**self.first.implementations(device), "fuse_heads": "reference"}

    def outputs(self) -> list[Tensor]:
        """Weights of the output projections."""
        return [self.first_out.weight] + ([self.second_out.weight] if self.mixer.output == "separate" else [])

    def _fuse(self, x: Tensor, norm: Tensor | None, first: Tensor, second: Tensor) -> Tensor:
        m = self.mixer
        scales: tuple[Tensor | None, Tensor | None] = (None, None)
        if m.scale == "vector":
            scales = self.first_scale, self.second_scale
        elif m.scale == "diff":
            scales = None, self.second_scale
        elif m.scale == "gate":
            one, two = project(x, norm, self.gate_proj.weight, [1, 1])
            scales = 2 * torch.sigmoid(one), 2 * torch.sigmoid(two)
        groups = 1 if isinstance(m.half, Attention) else m.half.groups
        return fuse_halves(
            (first, second),
            (groups, groups),
            norms=(self.first_norm.weight, self.second_norm.weight) if m.norm == "group" else None,
            scales=scales,
            fusion=m.fusion,
            weights=tuple(self.outputs()),
            eps=NORM_EPS,
        )
