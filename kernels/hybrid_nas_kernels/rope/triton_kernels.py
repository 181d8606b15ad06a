"""Rotary position encoding as one Triton kernel; its backward is the rotation by the opposite angle."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.operations import operation


def rope_triton(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `rope`, for float32 and bfloat16, the rotation in float32. Differentiable once, in x."""
    return torch.ops.hybrid_nas.rope(x, cos, sin, 1.0)  # type: ignore[no-any-return]


@triton.jit
def _turn(
    x_ptr, cos_ptr, sin_ptr, y_ptr, tokens, stride_b, stride_t, stride_cos, sign,
    H: tl.constexpr, HALF: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    b = row // tokens
    t = row % tokens
    h = tl.program_id(1) * BH + tl.arange(0, BH)
    d = tl.arange(0, BD)
    mask = (h < H)[:, None] & (d < HALF)[None, :]
    cos = tl.load(cos_ptr + t * stride_cos + d, mask=d < HALF, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + t * stride_cos + d, mask=d < HALF, other=0.0).to(tl.float32)[None, :] * sign
    first = h[:, None] * (2 * HALF) + d[None, :]
    x = x_ptr + b * stride_b + t * stride_t + first
    y = y_ptr + row * (2 * H * HALF) + first
    low = tl.load(x, mask=mask, other=0.0).to(tl.float32)
    high = tl.load(x + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(y, (low * cos - high * sin).to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(y + HALF, (high * cos + low * sin).to(y_ptr.dtype.element_ty), mask=mask)


@operation("rope(Tensor x, Tensor cos, Tensor sin, float sign) -> Tensor")
def _rope(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    batch, tokens, heads, head_dim = x.shape
    if x.stride(-1) != 1 or x.stride(-2) != head_dim:
        x = x.contiguous()
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    BH = triton.next_power_of_2(min(heads, 16))
    _turn[(batch * tokens, triton.cdiv(heads, BH))](
        x, cos, sin, y, tokens, *x.stride()[:2], cos.stride(0), sign,
        H=heads, HALF=head_dim // 2, BH=BH, BD=triton.next_power_of_2(head_dim // 2), num_warps=2,
    )  # fmt: skip
    return y


@_rope.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    return x.new_empty(x.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cos, sin, ctx.sign = inputs
    ctx.save_for_backward(cos, sin)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.hybrid_nas.rope(dy, *ctx.saved_tensors, -ctx.sign), None, None, None


_rope.register_autograd(_backward, setup_context=_save)
