"""What every sequence mixer is as a torch module, and the parts that they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels.linear_step import linear_step
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
        """`forward` for token number `position` alone, x (batch, width); updates `cache` in place. (batch, width),
        or parts of it that are still to be added, as `linear_step_parts` leaves them."""

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
        return torch.split(linear_step(x, weight), parts, dim=-1)
    return norm_linear_op.norm_linear(x, norm, weight, parts, eps=NORM_EPS)


def draw_short_convolution(convolution: nn.Conv1d, generator: torch.Generator) -> None:
    """Weight, then bias, uniform within kernel ** -0.5 of zero, as torch draws a depthwise convolution."""
    bound = convolution.kernel_size[0] ** -0.5
    convolution.weight.data.uniform_(-bound, bound, generator=generator)
    if convolution.bias is not None:
        convolution.bias.data.uniform_(-bound, bound, generator=generator)


def decay_log(uniform: Tensor, mamba_init: MambaInit) -> Tensor:
    """log of -A at a share `uniform` (from 0 to 1) of [0.01, 2] ("paper" [arXiv:2510.04800]) or of [1, 16] ("original"
    [arXiv:2405.21060])."""
    low, high = {"paper": (0.01, 2.0), "original": (1.0, 16.0)}[mamba_init]
    return (low + (high - low) * uniform).log()


def time_step_bias(uniform: Tensor) -> Tensor:
    """Inverse softplus of a time step at a share `uniform` of [0.001, 0.1] by logarithm [arXiv:2312.00752]."""
    dt = torch.exp(math.log(1e-3) + (math.log(1e-1) - math.log(1e-3)) * uniform).clamp(min=1e-4)
    return dt + torch.log(-torch.expm1(-dt))


def normed(x: Tensor, gain: Tensor) -> Tensor:
    """rms_norm of x over its last dimension, times `gain`, which may be of a wider dtype; returns the dtype of x."""
    return (F.rms_norm(x, gain.shape, eps=NORM_EPS) * gain).to(x.dtype)
