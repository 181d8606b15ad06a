"""Short depthwise causal convolution and SiLU as Triton kernels: one pass over the tokens each way."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.triton_sums import alignment, sum_rows

TOKENS, CHANNELS = 64, 64


def causal_conv1d_triton(x: Tensor, weight: Tensor, bias: Tensor, parts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """As `causal_conv1d`, for float32 and bfloat16; weight and bias may be float32 beside bfloat16 tokens. Each part
    is a tensor of its own. Differentiable once."""
    return tuple(torch.ops.hybrid_nas.causal_conv1d(x, weight, bias, list(parts)))


@triton.jit
def _convolve(
    x_ptr, weight_ptr, bias_ptr, dy_ptr, y_ptr, partial_ptr, tokens, channels, all_channels,
    stride_b, stride_t, stride_yb, stride_yt,
    K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, ALIGN: tl.constexpr, BACKWARD: tl.constexpr,
):  # fmt: skip
    """Forward: y = silu(convolution). Backward: y = the gradient before SiLU, and its products with each tap's input
    and with 1, summed over the block's tokens."""
    b = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    in_c = c < channels
    x_ptr += b * stride_b * ALIGN
    total = tl.zeros((BT, BC), tl.float32) + tl.load(bias_ptr + c, mask=in_c, other=0.0).to(tl.float32)[None, :]
    for k in tl.static_range(K):
        s = t - (K - 1) + k
        tap = tl.load(weight_ptr + c * K + k, mask=in_c, other=0.0).to(tl.float32)
        mask = ((s >= 0) & (s < tokens))[:, None] & in_c[None, :]
        x = tl.load(x_ptr + s[:, None] * (stride_t * ALIGN) + c[None, :], mask=mask, other=0.0)
        total += tap[None, :] * x.to(tl.float32)
    sigmoid = tl.sigmoid(total)
    inside = (t < tokens)[:, None] & in_c[None, :]
    out = (b * tokens + t[:, None]) * channels + c[None, :]
    if BACKWARD:
        dy = tl.load(dy_ptr + b * stride_yb + t[:, None] * stride_yt + c[None, :], mask=inside, other=0.0)
        dtotal = dy.to(tl.float32) * sigmoid * (1 + total * (1 - sigmoid))
        tl.store(y_ptr + out, dtotal.to(y_ptr.dtype.element_ty), mask=inside)
        row = partial_ptr + (b * tl.num_programs(0) + tl.program_id(0)) * (K + 1) * all_channels + c
        tl.store(row + K * all_channels, tl.sum(dtotal, 0), mask=in_c)
        for k in tl.static_range(K):
            s = t - (K - 1) + k
            mask = ((s >= 0) & (s < tokens))[:, None] & in_c[None, :]
            x = tl.load(x_ptr + s[:, None] * (stride_t * ALIGN) + c[None, :], mask=mask, other=0.0)
            tl.store(row + k * all_channels, tl.sum(dtotal * x.to(tl.float32), 0), mask=in_c)
    else:
        tl.store(y_ptr + out, (total * sigmoid).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _spread(
    dtotal_ptr, weight_ptr, dx_ptr, tokens, channels, all_channels, K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr
):
    """dx: the mirrored convolution of the gradient before SiLU."""
    b = tl.program_id(2).to(tl.int64)
    t = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    in_c = c < channels
    dx = tl.zeros((BT, BC), tl.float32)
    for j in tl.static_range(K):
        tap = tl.load(weight_ptr + c * K + (K - 1 - j), mask=in_c, other=0.0).to(tl.float32)
        read = dtotal_ptr + (b * tokens + t[:, None] + j) * channels + c[None, :]
        dtotal = tl.load(read, mask=(t + j < tokens)[:, None] & in_c[None, :], other=0.0)
        dx += tap[None, :] * dtotal.to(tl.float32)
    out = (b * tokens + t[:, None]) * all_channels + c[None, :]
    tl.store(dx_ptr + out, dx.to(dx_ptr.dtype.element_ty), mask=(t < tokens)[:, None] & in_c[None, :])


@operation("causal_conv1d(Tensor x, Tensor weight, Tensor bias, int[] parts) -> Tensor[]")
def _conv(x: Tensor, weight: Tensor, bias: Tensor, parts: list[int]) -> list[Tensor]:
    batch, tokens, _ = x.shape
    x = x if x.stride(-1) == 1 else x.contiguous()
    weight, outputs, first = weight.contiguous(), [], 0
    align = alignment(math.gcd(*x.stride()[:2]))
    for part in parts:
        y = torch.empty((batch, tokens, part), dtype=x.dtype, device=x.device)
        _convolve[(triton.cdiv(tokens, TOKENS), triton.cdiv(part, CHANNELS), batch)](
            x[..., first:], weight[first:], bias[first:], y, y, y, tokens, part, part,
            *(stride // align for stride in x.stride()[:2]), 0, 0,
            K=weight.shape[1], BT=TOKENS, BC=CHANNELS, ALIGN=align, BACKWARD=False,
        )  # fmt: skip
        outputs.append(y)
        first += part
    return outputs


@_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, parts: list[int]) -> list[Tensor]:
    return [x.new_empty((*x.shape[:2], part)) for part in parts]


@operation("causal_conv1d_backward(Tensor[] dys, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor, Tensor)")
def _conv_backward(dys: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, channels = x.shape
    kernel = weight.shape[1]
    x = x if x.stride(-1) == 1 else x.contiguous()
    weight = weight.contiguous()
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    blocks = triton.cdiv(tokens, TOKENS)
    partial = torch.empty((batch * blocks, kernel + 1, channels), dtype=torch.float32, device=x.device)
    first, align = 0, alignment(math.gcd(*x.stride()[:2]))
    for dy in dys:
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        part = dy.shape[-1]
        dtotal = torch.empty((batch, tokens, part), dtype=x.dtype, device=x.device)
        grid, sizes = (blocks, triton.cdiv(part, CHANNELS), batch), {"K": kernel, "BT": TOKENS, "BC": CHANNELS}
        _convolve[grid](
            x[..., first:], weight[first:], bias[first:], dy, dtotal, partial[..., first:], tokens, part, channels,
            *(stride // align for stride in x.stride()[:2]), *dy.stride()[:2],
            **sizes, ALIGN=align, BACKWARD=True,
        )  # fmt: skip
        _spread[grid](dtotal, weight[first:], dx[..., first:], tokens, part, channels, **sizes)
        first += part
    sums = sum_rows(partial)
    return dx, sums[:kernel].t().to(weight.dtype, copy=True), sums[kernel].to(bias.dtype, copy=True)


@_conv_backward.register_fake
def _(dys: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx: Any, dys: list[Tensor]) -> tuple[Tensor | None, ...]:
    dx, dweight, dbias = torch.ops.hybrid_nas.causal_conv1d_backward(dys, *ctx.saved_tensors)
    return dx, dweight, dbias, None


_conv.register_autograd(_backward, setup_context=_save)
