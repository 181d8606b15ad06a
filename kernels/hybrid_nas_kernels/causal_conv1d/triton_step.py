"""The decoding step of the convolution as one Triton kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _step(
    x_ptr,
    state_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    channels,
    stride_x,
    K: tl.constexpr,
    BK: tl.constexpr,
    BC: tl.constexpr,
):
    b = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    k = tl.arange(0, BK)
    mask = (c < channels)[:, None] & (k < K)[None, :]
    place = state_ptr + (b * channels + c[:, None]) * K + k[None, :]
    older = tl.load(place + 1, mask=mask & (k < K - 1)[None, :], other=0.0)
    newest = tl.load(x_ptr + b * stride_x + c, mask=c < channels, other=0.0).to(older.dtype)
    window = tl.where((k == K - 1)[None, :], newest[:, None], older)
    tl.debug_barrier()  # neighbours have read their older inputs before these places are written
    tl.store(place, window, mask=mask)
    weight = tl.load(weight_ptr + c[:, None] * K + k[None, :], mask=mask, other=0.0).to(tl.float32)
    total = tl.sum(window.to(tl.float32) * weight, 1)
    total += tl.load(bias_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
    y = total * tl.sigmoid(total)
    tl.store(y_ptr + b * channels + c, y.to(y_ptr.dtype.element_ty), mask=c < channels)


def causal_conv1d_step_triton(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As `causal_conv1d_step`; `state` has no gaps."""
    batch, channels = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    kernel = weight.shape[1]
    y = torch.empty((batch, channels), dtype=x.dtype, device=x.device)
    _step[(batch, triton.cdiv(channels, 256))](
        x, state, weight.contiguous(), bias, y, channels, x.stride(0),
        K=kernel, BK=triton.next_power_of_2(kernel), BC=256,
    )  # fmt: skip
    return y
