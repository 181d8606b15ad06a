"""What every sequence mixer is as a torch module, and the parts that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from hybrid_nas_kernels import norm_linear as norm_linear_op
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-5
MambaInit = Literal["paper", "original"]
LayerCache = dict[str, Tensor]


class MixerModule(nn.Module, ABC):
    """(batch, tokens, width) -> (batch, tokens, width), causal; and the same a token at a time with a cache."""

    @abstractmethod
    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        """The mixer of x, or of rms_norm(x) * norm where `norm` (width,) is given, as in a block."""

    @abstractmethod
    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """What decoding up to `context` tokens keeps, zeroed. Its bytes are those of `cost`."""

    @abstractmethod
    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        """`forward` for token number `position` alone, x (batch, width); updates `cache` in place."""

    @abstractmethod
    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """Draw the initial weights. `residual_scale` multiplies those that write to the residual stream."""

    @abstractmethod
    def implementations(self, device: torch.device) -> dict[str, str]:
        """operation -> the implementation that `forward` runs on `device`."""


class Gain(nn.Module):
    """The weight of an RMSNorm. Its arithmetic is part of the operation that reads the norm's output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))


def draw_linear(weight: Tensor, generator: torch.Generator) -> None:
    """Normal of standard deviation fan_in ** -0.5: unit inputs give unit outputs at every width."""
    weight.data.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)


def project(x: Tensor, norm: Tensor | None, weight: Tensor, parts: list[int]) -> tuple[Tensor, ...]:
    if norm is None:
        return torch.split(F.linear(x, weight), parts, dim=-1)
    return norm_linear_op.norm_linear(x, norm, weight, parts, eps=NORM_EPS)
