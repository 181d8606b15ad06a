"""A decoding step of the convolution and the scan together: one launch on a CUDA device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.dispatch import deferred, runs_triton
from hybrid_nas_kernels.ssd import ssd_step_reference


def conv_scan_step(
    xBC: Tensor,
    dt: Tensor,
    conv: Tensor,
    state: Tensor,
    position: int,
    conv_weight: Tensor,
    conv_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    dt_bias: Tensor,
) -> Tensor:
    """The heads' outputs y (batch, heads, head_dim) for token number `position` alone; conv and state are updated in
    place.

    xBC (batch, channels), the convolution's input; dt (batch, heads) before its bias and softplus; `conv` (batch,
    channels, K) the last K inputs, that of token t in place t modulo K, zeros before the first; `state` (batch, heads,
    head_dim, d_state); conv_weight (channels, K), the last tap meets the token itself, conv_bias (channels,); A_log, D
    and dt_bias (heads,). Channels are x, then B and C of each group. Computes in float32 at least. Triton on a CUDA
    device, the reference elsewhere.
    """
    run = conv_scan_step_triton if runs_triton(xBC) else conv_scan_step_reference
    y: Tensor = run(xBC, dt, conv, state, position, conv_weight, conv_bias, A_log, D, dt_bias)
    return y


def conv_scan_step_reference(
    xBC: Tensor,
    dt: Tensor,
    conv: Tensor,
    state: Tensor,
    position: int,
    conv_weight: Tensor,
    conv_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    dt_bias: Tensor,
) -> Tensor:
    """As `conv_scan_step`."""
    batch, heads, head_dim, d_state = state.shape
    taps = conv_weight.shape[1]
    conv[:, :, position % taps] = xBC
    window = conv.roll(-(position + 1) % taps, dims=2).to(torch.promote_types(conv.dtype, conv_weight.dtype))
    u = F.silu((window * conv_weight).sum(-1) + conv_bias).to(xBC.dtype)
    d_ssm = heads * head_dim
    x, B, C = torch.split(u, [d_ssm, (u.shape[1] - d_ssm) // 2, (u.shape[1] - d_ssm) // 2], dim=-1)
    B, C = (v.view(batch, -1, d_state) for v in (B, C))
    return ssd_step_reference(x.view(batch, heads, head_dim), dt, A_log, B, C, D, state, dt_bias)


conv_scan_step_triton = deferred("hybrid_nas_kernels.mamba2.triton_step", "conv_scan_step_triton", needs="triton")
