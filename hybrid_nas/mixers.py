"""The sequence mixers as torch modules, one class a description. A mixer is a description in `architecture`, a cost in
`cost`, a module (here or in a file of its own) and its line in `MODULES`.
"""

from __future__ import annotations

import torch
from hybrid_nas_kernels import gated_norm_linear as gated_norm_op
from hybrid_nas_kernels import mamba2 as mamba2_op
from hybrid_nas_kernels.linear_step import linear_step_parts
from torch import Tensor, nn

from hybrid_nas.architecture import Attention, Mamba2, Mixer, ParallelHybrid, ParallelPair
from hybrid_nas.gated_deltanet import GatedDeltaNetModule
from hybrid_nas.heads import AttentionHeads, Mamba2Heads
from hybrid_nas.mamba1 import Mamba1Module
from hybrid_nas.mamba3 import Mamba3Module
from hybrid_nas.mixer_module import NORM_EPS, Gain, LayerCache, MambaInit, MixerModule, draw_linear
from hybrid_nas.parallel import ParallelHybridModule
from hybrid_nas.parallel_pair import ParallelPairModule
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3


class AttentionModule(AttentionHeads, MixerModule):
    """A layer of attention: the heads and their output projection."""

    def __init__(self, mixer: Attention, width: int) -> None:
        super().__init__(mixer, width)
        self.o_proj = nn.Linear(mixer.values, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        out: Tensor = self.o_proj(self.attend(x, norm)[0])
        return out

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        return linear_step_parts(self.attend_step(x, cache, position, norm)[0], self.o_proj.weight)

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        del mamba_init
        self.draw(generator)
        draw_linear(self.o_proj.weight, generator)
        self.o_proj.weight.data.mul_(residual_scale)


class Mamba2Module(Mamba2Heads, MixerModule):
    """A layer of Mamba-2: the heads, their gate before a grouped norm, and the output projection."""

    def __init__(self, mixer: Mamba2, width: int) -> None:
        super().__init__(mixer, width)
        self.norm = Gain(mixer.d_ssm)
        self.out_proj = nn.Linear(mixer.d_ssm, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        if norm is None:
            return self._close(*self.scan(x, norm))
        return mamba2_op.mamba2(
            x,
            norm,
            self.in_proj.weight,
            self.conv1d.weight.squeeze(1),
            self._conv_bias(),
            self.dt_bias,
            self.A_log,
            self.D,
            self.norm.weight,
            self.out_proj.weight,
            groups=self.mixer.groups,
            eps=NORM_EPS,
        )

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        return self._close(*self.scan_step(x, cache, position, norm), parts=True)

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        self.draw(generator, mamba_init, self.out_proj.weight)
        self.out_proj.weight.data.mul_(residual_scale)
        self.norm.weight.data.fill_(1.0)

    def implementations(self, device: torch.device) -> dict[str, str]:
        whole = mamba2_op.choose(device)[0]
        if whole != "separate":
            return {"mamba2": whole}
        parts = {**super().implementations(device), "gated_norm_linear": gated_norm_op.choose(device)[0]}
        return {"mamba2": whole, **parts}

    def _close(self, y: Tensor, z: Tensor, parts: bool = False) -> Tensor:
        return gated_norm_op.gated_norm_linear(
            y, z, self.norm.weight, self.out_proj.weight, groups=self.mixer.groups, eps=NORM_EPS, parts=parts
        )


MODULES: dict[type[Mixer], type[MixerModule]] = {
    Attention: AttentionModule,
    Mamba2: Mamba2Module,
    ParallelHybrid: ParallelHybridModule,
    ParallelPair: ParallelPairModule,
    Mamba1: Mamba1Module,
    Mamba3: Mamba3Module,
    GatedDeltaNet: GatedDeltaNetModule,
}
