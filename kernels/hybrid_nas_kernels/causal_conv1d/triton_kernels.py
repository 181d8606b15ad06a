"""Short depthwise causal convolution and SiLU as Triton kernels: one pass over the tokens each way.

A program takes its channels from token to token with what the taps need in registers: nothing is read twice, and the
gradient before SiLU is never written.
"""

# ruff: noqa: RUF005  (inside a kernel there is no starred expression)
# mypy: disable-error-code="assignment, var-annotated, unreachable, operator, misc"
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.triton_sums import alignment, sum_rows_apart

CHANNELS, UNROLL, MOST_PARTS = 128, 4, 3
LONG, SHORT, PROGRAMS = 64, 16, 2048
"""Tokens of a program, and the number of programs, of one warp each, from which they are LONG."""


def causal_conv1d_triton(x: Tensor, weight: Tensor, bias: Tensor, parts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """As `causal_conv1d`, for float32 and bfloat16; weight and bias may be float32 beside bfloat16 tokens. Each part
    is a tensor of its own. Differentiable once."""
    return tuple(torch.ops.hybrid_nas.causal_conv1d(x, weight, bias, list(parts)))


@triton.jit
def _part(block, B0, B1, C0, C1, C2, PARTS: tl.constexpr):
    """Of all blocks of channels, one after another a part: which part, its first channel and its channels, and the
    block's number in it."""
    part = 0
    first = 0
    channels = C0
    if PARTS > 1 and block >= B0:
        part = 1
        first = C0
        channels = C1
        block -= B0
        if PARTS > 2 and block >= B1:
            part = 2
            first = C0 + C1
            channels = C2
            block -= B1
    return part, first, channels, block


@triton.jit
def _convolve(
    x_ptr, weight_ptr, bias_ptr, y0_ptr, y1_ptr, y2_ptr, tokens, B0, B1, C0, C1, C2, stride_b, stride_t,
    K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, U: tl.constexpr, ALIGN: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """y = silu(convolution) of BT tokens, one after another: the last K inputs stay in registers."""
    part, first, channels, block = _part(tl.program_id(1), B0, B1, C0, C1, C2, PARTS)
    y_ptr = y0_ptr
    if PARTS > 1 and part == 1:
        y_ptr = y1_ptr
    if PARTS > 2 and part == 2:
        y_ptr = y2_ptr
    b = tl.program_id(2).to(tl.int64)
    c = block * BC + tl.arange(0, BC)
    in_c = c < channels
    x_ptr += b * stride_b * ALIGN + first
    y_ptr += b * tokens * channels
    bias = tl.load(bias_ptr + first + c, mask=in_c, other=0.0).to(tl.float32)
    start = tl.program_id(0) * BT
    taps, seen = (), ()
    for k in tl.static_range(K):
        taps = taps + (tl.load(weight_ptr + (first + c) * K + k, mask=in_c, other=0.0).to(tl.float32),)
        t = start - K + k
        early = tl.load(
            x_ptr + t * (stride_t * ALIGN) + c, mask=c < tl.where((t >= 0) & (t < tokens), channels, 0), other=0.0
        )
        seen = seen + (early.to(tl.float32),)
    for i in range(0, BT, U):
        xs = ()
        for u in tl.static_range(U):  # all at once: a load does not pass a store before it
            t = start + i + u
            inside = c < tl.where(t < tokens, channels, 0)
            xs = xs + (tl.load(x_ptr + t * (stride_t * ALIGN) + c, mask=inside, other=0.0),)
        for u in tl.static_range(U):
            t = start + i + u
            seen = seen[1:] + (xs[u].to(tl.float32),)
            total = bias
            for k in tl.static_range(K):
                total += taps[k] * seen[k]
            y = total * tl.sigmoid(total)
            tl.store(y_ptr + t * channels + c, y.to(y_ptr.dtype.element_ty), mask=c < tl.where(t < tokens, channels, 0))


@triton.jit
def _convolve_backward(
    x_ptr, weight_ptr, bias_ptr, dy0_ptr, dy1_ptr, dy2_ptr, dx_ptr, partial_ptr, tokens, B0, B1, C0, C1, C2,
    stride_b, stride_t, all_channels,
    K: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, U: tl.constexpr, ALIGN: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """dx of BT tokens: the gradients before SiLU of a token and the K - 1 after it, by the mirrored taps. And the BT
    tokens' sums of those gradients times each tap's input, and times 1."""
    part, first, channels, block = _part(tl.program_id(1), B0, B1, C0, C1, C2, PARTS)
    dy_ptr = dy0_ptr
    if PARTS > 1 and part == 1:
        dy_ptr = dy1_ptr
    if PARTS > 2 and part == 2:
        dy_ptr = dy2_ptr
    b = tl.program_id(2).to(tl.int64)
    c = block * BC + tl.arange(0, BC)
    in_c = c < channels
    x_ptr += b * stride_b * ALIGN + first
    dy_ptr += b * tokens * channels
    dx_ptr += b * tokens * all_channels + first
    bias = tl.load(bias_ptr + first + c, mask=in_c, other=0.0).to(tl.float32)
    start = tl.program_id(0) * BT
    taps, seen, sums, after = (), (), (), ()
    for k in tl.static_range(K):
        taps = taps + (tl.load(weight_ptr + (first + c) * K + k, mask=in_c, other=0.0).to(tl.float32),)
        t = start - K + k
        early = tl.load(
            x_ptr + t * (stride_t * ALIGN) + c, mask=c < tl.where((t >= 0) & (t < tokens), channels, 0), other=0.0
        )
        seen = seen + (early.to(tl.float32),)
        sums = sums + (tl.zeros((BC,), tl.float32),)
        after = after + (tl.zeros((BC,), tl.float32),)
    dbias = tl.zeros((BC,), tl.float32)
    for i in range(0, BT + U, U):
        xs, dys = (), ()
        for u in tl.static_range(U):
            t = start + i + u
            inside = c < tl.where((t < tokens) & (t < start + BT + K - 1), channels, 0)
            xs = xs + (tl.load(x_ptr + t * (stride_t * ALIGN) + c, mask=inside, other=0.0),)
            dys = dys + (tl.load(dy_ptr + t * channels + c, mask=inside, other=0.0),)
        for u in tl.static_range(U):
            t = start + i + u
            dy = dys[u].to(tl.float32)
            seen = seen[1:] + (xs[u].to(tl.float32),)
            total = bias
            for k in tl.static_range(K):
                total += taps[k] * seen[k]
            sigmoid = tl.sigmoid(total)
            dtotal = dy * sigmoid * (1 + total * (1 - sigmoid))
            after = after[1:] + (dtotal,)
            own = tl.where(t < start + BT, dtotal, 0.0)
            dbias += own
            added = ()
            dx = tl.zeros((BC,), tl.float32)
            for k in tl.static_range(K):
                added = added + (sums[k] + own * seen[k],)
                dx += taps[K - 1 - k] * after[k]
            sums = added
            s = t - (K - 1)
            kept = c < tl.where((s >= start) & (s < start + BT) & (s < tokens), channels, 0)
            tl.store(dx_ptr + s * all_channels + c, dx.to(dx_ptr.dtype.element_ty), mask=kept)
    row = partial_ptr + (b * tl.num_programs(0) + tl.program_id(0)) * (K + 1) * all_channels
    for k in tl.static_range(K):
        tl.store(row + (first + c) * K + k, sums[k], mask=in_c)
    tl.store(row + K * all_channels + first + c, dbias, mask=in_c)


def _launch(
    x: Tensor, parts: Sequence[int], kernel: int
) -> tuple[tuple[int, int, int], tuple[int, ...], dict[str, Any]]:
    """The grid, the integers that both kernels take, and their constants."""
    batch, tokens, _ = x.shape
    if len(parts) > MOST_PARTS:
        raise ValueError(f"causal_conv1d: at most {MOST_PARTS} parts, found {len(parts)}")
    blocks = [triton.cdiv(part, CHANNELS) for part in parts]
    run = LONG if batch * triton.cdiv(tokens, LONG) * sum(blocks) >= PROGRAMS else SHORT
    align = alignment(math.gcd(*x.stride()[:2]))
    b0, b1 = [*blocks, 0][:2]
    strides = (stride // align for stride in x.stride()[:2])
    numbers = (tokens, b0, b1, *[*parts, 0, 0][:MOST_PARTS], *strides)
    constants = {"K": kernel, "BT": run, "BC": CHANNELS, "U": max(UNROLL, triton.next_power_of_2(kernel - 1))}
    return (
        (triton.cdiv(tokens, run), sum(blocks), batch),
        numbers,
        {**constants, "ALIGN": align, "PARTS": len(parts), "num_warps": 1},
    )


def _three(values: Sequence[Tensor]) -> list[Tensor]:
    return [*values, values[0], values[0]][:MOST_PARTS]


@operation("causal_conv1d(Tensor x, Tensor weight, Tensor bias, int[] parts) -> Tensor[]")
def _conv(x: Tensor, weight: Tensor, bias: Tensor, parts: list[int]) -> list[Tensor]:
    x = x if x.stride(-1) == 1 else x.contiguous()
    ys = [torch.empty((*x.shape[:2], part), dtype=x.dtype, device=x.device) for part in parts]
    grid, numbers, constants = _launch(x, parts, weight.shape[1])
    _convolve[grid](x, weight.contiguous(), bias, *_three(ys), *numbers, **constants)
    return ys


@_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, parts: list[int]) -> list[Tensor]:
    return [x.new_empty((*x.shape[:2], part)) for part in parts]


@operation("causal_conv1d_backward(Tensor[] dys, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor, Tensor)")
def _conv_backward(dys: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    kernel = weight.shape[1]
    x = x if x.stride(-1) == 1 else x.contiguous()
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid, numbers, constants = _launch(x, [dy.shape[-1] for dy in dys], kernel)
    partial = torch.empty((grid[0] * grid[2], weight.numel() + len(weight)), dtype=torch.float32, device=x.device)
    _convolve_backward[grid](
        x, weight.contiguous(), bias, *_three([dy.contiguous() for dy in dys]), dx, partial, *numbers, x.shape[-1],
        **constants,
    )  # fmt: skip
    dweight, dbias = sum_rows_apart(partial, weight.numel(), (weight.dtype, bias.dtype))
    return dx, dweight.view(weight.shape), dbias


@_conv_backward.register_fake
def _(dys: list[Tensor], x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), bias.new_empty(bias.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3])


def _backward(ctx: Any, dys: list[Tensor]) -> tuple[Tensor | None, ...]:
    dx, dweight, dbias = torch.ops.hybrid_nas.causal_conv1d_backward(dys, *ctx.saved_tensors)
    return dx, dweight, dbias, None


_conv.register_autograd(_backward, setup_context=_save)
