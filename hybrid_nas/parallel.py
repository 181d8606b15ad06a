"""The parallel hybrid as a torch module: attention heads and Mamba-2 heads on one input, fused."""

from __future__ import annotations

import torch
from hybrid_nas_kernels import fuse_heads as fuse_op
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels import parallel_step as parallel_step_op
from hybrid_nas_kernels.adjacent import adjacent
from torch import Tensor, nn

from hybrid_nas.architecture import ParallelHybrid
from hybrid_nas.heads import AttentionHeads, Mamba2Heads
from hybrid_nas.mixer_module import NORM_EPS, Gain, LayerCache, MambaInit, MixerModule, draw_linear, project


class ParallelHybridModule(MixerModule):
    """Heads of both kinds, each with its gain and scale, and one output projection or one a kind.

    With one projection it is `out_proj`, whose inputs are Mamba-2's channels first where they are side by side.
    """

    def __init__(self, mixer: ParallelHybrid, width: int) -> None:
        super().__init__()
        self.mixer = mixer
        d_ssm, values = mixer.mamba.d_ssm, mixer.attention.values
        self.attention = AttentionHeads(mixer.attention, width)
        self.mamba = Mamba2Heads(mixer.mamba, width, own_input=mixer.value == "separate")
        if mixer.norm == "group":
            self.mamba_norm, self.attention_norm = Gain(d_ssm), Gain(values)
        if mixer.scale == "vector":
            self.mamba_scale = nn.Parameter(torch.empty(d_ssm))
        if mixer.scale in ("vector", "diff"):
            self.attention_scale = nn.Parameter(torch.empty(values if mixer.scale == "vector" else 1))
        if mixer.scale == "gate":
            self.gate_proj = nn.Linear(width, 2, bias=False)
        if mixer.output == "separate":
            self.o_proj = nn.Linear(values, width, bias=False)
        inputs = d_ssm + values if mixer.fusion == "concat" else d_ssm
        self.out_proj = nn.Linear(inputs, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        x, norm = norm_linear_op.norm_once(x, norm, eps=NORM_EPS)
        attended, values = self.attention.attend(x, norm)
        y, z = self.mamba.scan(x, norm, self._given(values))
        return self._fuse(x, norm, y, z, attended)

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Both halves' own."""
        return {
            **self.attention.cache(batch, context, device, dtype),
            **self.mamba.cache(batch, context, device, dtype),
        }

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        x, norm = norm_linear_op.norm_once(x, norm, eps=NORM_EPS)
        *heads, projected = norm_linear_op.norm_linears(x, norm, self.read_together(), eps=NORM_EPS)
        if self._steps_as_one(x):
            cached = self.attention.cached_arguments(heads, cache, position)
            mamba, z = self.mamba.scan_arguments(projected, cache, position)
            return parallel_step_op.parallel_step(
                cached,
                mamba,
                z,
                norms=(self.mamba_norm.weight, self.attention_norm.weight),
                fusion=self.mixer.fusion,
                weights=(self.out_proj.weight, self.o_proj.weight),
                eps=NORM_EPS,
                parts=True,
            )
        attended, values = self.attention.attend_projected(heads, cache, position)
        y, z = self.mamba.scan_projected(projected, cache, position, self._given(values))
        return self._fuse(x, norm, y, z, attended)

    def read_together(self) -> list[Tensor]:
        """The weights that read the layer's input, attention's first."""
        return [*self.attention.read_together(), *self.mamba.read_together()]

    def summed_together(self) -> list[Tensor]:
        """The weights whose products are added."""
        return [self.out_proj.weight, self.o_proj.weight] if self.mixer.output == "separate" else []

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """Scales begin at 1, as if they were not there; a difference begins with both halves at full weight."""
        m = self.mixer
        outputs = [self.out_proj.weight]
        if m.output == "separate":
            outputs.append(self.o_proj.weight)
        self.attention.draw(generator)
        self.mamba.draw(generator, mamba_init, *outputs)
        for weight in outputs:
            weight.data.mul_(residual_scale)
        if m.norm == "group":
            self.mamba_norm.weight.data.fill_(1.0)
            self.attention_norm.weight.data.fill_(1.0)
        if m.scale == "vector":
            self.mamba_scale.data.fill_(1.0)
        if m.scale in ("vector", "diff"):
            self.attention_scale.data.fill_(1.0)
        if m.scale == "gate":
            draw_linear(self.gate_proj.weight, generator)

    def implementations(self, device: torch.device) -> dict[str, str]:
        halves = {**self.attention.implementations(device), **self.mamba.implementations(device)}
        return {**halves, "fuse_heads": fuse_op.choose(device)[0]}

    def scales(self, x: Tensor, norm: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The weight of Mamba-2's half and of the attention's, each a number, one a channel, or one a token."""
        match self.mixer.scale:
            case "vector":
                return self.mamba_scale, self.attention_scale
            case "diff":
                return None, self.attention_scale
            case "gate":
                mamba, attention = project(x, norm, self.gate_proj.weight, [1, 1])
                return 2 * torch.sigmoid(mamba), 2 * torch.sigmoid(attention)
            case "none":
                return None, None

    def _steps_as_one(self, x: Tensor) -> bool:
        """Whether `parallel_step` has this layer and is faster than its parts one after another."""
        m = self.mixer
        if (m.value, m.norm, m.scale, m.output, m.mamba.groups) != ("separate", "group", "none", "separate", 1):
            return False
        if m.fusion == "concat" or torch.is_grad_enabled():
            return False
        fast = parallel_step_op.choose(x.device, x.dtype)[0] == "triton"
        return fast and adjacent(self.summed_together(), dim=1) is not None

    def _given(self, values: Tensor) -> Tensor | None:
        """The values as Mamba-2's input, one a query head: (..., heads * value_dim)."""
        if self.mixer.value == "separate":
            return None
        attention = self.mixer.attention
        return values.repeat_interleave(attention.heads // attention.kv_heads, dim=-2).flatten(-2)

    def _fuse(self, x: Tensor, norm: Tensor | None, y: Tensor, z: Tensor, attended: Tensor) -> Tensor:
        m = self.mixer
        return fuse_op.fuse_heads(
            y,
            z,
            attended,
            norms=(self.mamba_norm.weight, self.attention_norm.weight) if m.norm == "group" else None,
            scales=self.scales(x, norm),
            fusion=m.fusion,
            weights=(self.out_proj.weight, self.o_proj.weight) if m.output == "separate" else (self.out_proj.weight,),
            groups=m.mamba.groups,
            eps=NORM_EPS,
        )
