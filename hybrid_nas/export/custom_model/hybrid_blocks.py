"""A block of a hybrid language model: x + mixer(norm(x)), then x + ffn(norm(x)); either part may be absent."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .configuration_hybrid import HybridConfig
from .hybrid_ffn import MoE, SquaredReLU, SwiGLU
from .hybrid_mixers import Attention, Layer, Mamba2, ParallelHybrid, RMSNorm
from .hybrid_recurrent import GatedDeltaNet, Mamba1, Mamba3

MIXERS = {
    "attention": Attention,
    "mamba2": Mamba2,
    "parallel_hybrid": ParallelHybrid,
    "mamba1": Mamba1,
    "mamba3": Mamba3,
    "gated_deltanet": GatedDeltaNet,
}
FFNS = {"swiglu": SwiGLU, "squared_relu": SquaredReLU, "moe": MoE}


class Block(nn.Module):
    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.mixer_norm = self.mixer = self.ffn_norm = self.ffn = None
        if (mixer := spec["mixer"]) is not None:
            self.mixer_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.mixer = MIXERS[mixer["kind"]](mixer, config)
        if (ffn := spec["ffn"]) is not None:
            self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.ffn = FFNS[ffn["kind"]](ffn, config)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        if self.mixer is not None:
            x = x + self.mixer(self.mixer_norm(x), positions, layer)
        if self.ffn is not None:
            x = x + self.ffn(self.ffn_norm(x))
        return x
