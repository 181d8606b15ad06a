"""The Mamba-2 mixer as its operations one after another: the meaning, and the way where no compiler is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.causal_conv1d import causal_conv1d
from hybrid_nas_kernels.gated_norm_linear import gated_norm_linear
from hybrid_nas_kernels.norm_linear import norm_linear
from hybrid_nas_kernels.ssd import ssd, time_step


def mamba2_separate(
    x: Tensor,
    norm: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    gate_norm: Tensor,
    out_proj: Tensor,
    groups: int,
    eps: float,
    implementation: str = "auto",
) -> Tensor:
    """As `mamba2`; `implementation` is that of every operation inside."""
    batch, tokens, _ = x.shape
    channels, (d_ssm,), (heads,) = len(conv_weight), gate_norm.shape, A_log.shape
    parts = [d_ssm, channels, heads]
    z, xBC, dt = norm_linear(x, norm, in_proj, parts, eps=eps, implementation=implementation)
    u, BC = causal_conv1d(xBC, conv_weight, conv_bias, (d_ssm, channels - d_ssm), implementation=implementation)
    B, C = (part.reshape(batch, tokens, groups, -1) for part in torch.chunk(BC, 2, dim=-1))
    y, _ = ssd(
        u.view(batch, tokens, heads, d_ssm // heads),
        time_step(dt, dt_bias) if implementation == "auto" else F.softplus(dt + dt_bias),
        -torch.exp(A_log),
        B,
        C,
        D,
        implementation=implementation,
    )
    return gated_norm_linear(
        y.reshape(batch, tokens, d_ssm), z, gate_norm, out_proj, groups=groups, eps=eps, implementation=implementation
    )


def mamba2_reference(
    x: Tensor,
    norm: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    gate_norm: Tensor,
    out_proj: Tensor,
    groups: int,
    eps: float,
) -> Tensor:
    """The references of all operations, one after another."""
    weights = (in_proj, conv_weight, conv_bias, dt_bias, A_log, D, gate_norm, out_proj)
    return mamba2_separate(x, norm, *weights, groups, eps, "reference")
