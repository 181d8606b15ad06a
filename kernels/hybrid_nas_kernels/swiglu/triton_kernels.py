"""RMSNorm and a SwiGLU feed-forward network: the norm and silu(g) u as Triton kernels, the maps torch's.

Where there are many tokens, gate and up are one product: copying two weight matrices side by side costs less than
reading the tokens twice, forward and backward.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.adjacent import adjacent, products
from hybrid_nas_kernels.linear_step import linear_step, linear_step_parts
from hybrid_nas_kernels.norm_linear.triton_kernels import rms_norm
from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.triton_sums import rows_of

BLOCK = 1024
TOGETHER = 256
"""Rows from which gate and up are one product."""


def swiglu_triton(x: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
    """As `swiglu`, for float32 and bfloat16; `norm` may be float32 beside bfloat16 tokens."""
    return swiglu_normed(rms_norm(x, norm, eps), gate, up, down)


def swiglu_normed(n: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """As `swiglu_triton`, of tokens that have been through the norm."""
    return linear_step(_gated(n, gate, up), down)


def swiglu_step(n: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """As `swiglu_normed`, for the rows of a decoding step: the output, or parts of it, as `linear_step_parts` leaves
    them."""
    return linear_step_parts(_gated(n, gate, up), down)


def _gated(n: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate n) * (up n)."""
    if n.numel() // n.shape[-1] >= TOGETHER:
        both = F.linear(n, torch.cat((gate, up)))
    else:
        g, u = products(n, (gate, up))
        whole = None if torch.is_grad_enabled() else adjacent((g, u), dim=-1)
        if whole is None:
            return silu_mul(g, u)
        both = whole
    return torch.ops.hybrid_nas.silu_mul_halves(both)  # type: ignore[no-any-return]


def silu_mul(g: Tensor, u: Tensor) -> Tensor:
    """silu(g) * u, of one shape."""
    return torch.ops.hybrid_nas.silu_mul(g, u)  # type: ignore[no-any-return]


@triton.jit
def _silu_mul(g_ptr, u_ptr, y_ptr, stride, hidden, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = i < hidden
    g = tl.load(g_ptr + row * stride + i, mask=mask, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + row * stride + i, mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * hidden + i, (g * tl.sigmoid(g) * u).to(y_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _silu_mul_backward(dy_ptr, g_ptr, u_ptr, dg_ptr, du_ptr, stride, hidden, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = i < hidden
    dy = tl.load(dy_ptr + row * hidden + i, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(g_ptr + row * stride + i, mask=mask, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + row * stride + i, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(g)
    dg = dy * u * sigmoid * (1 + g * (1 - sigmoid))
    tl.store(dg_ptr + row * stride + i, dg.to(dg_ptr.dtype.element_ty), mask=mask)
    tl.store(du_ptr + row * stride + i, (dy * g * sigmoid).to(du_ptr.dtype.element_ty), mask=mask)


def _grid(rows: int, hidden: int) -> tuple[tuple[int, int], int]:
    block = min(BLOCK, triton.next_power_of_2(hidden))
    return (rows, triton.cdiv(hidden, block)), block


@operation("silu_mul(Tensor g, Tensor u) -> Tensor")
def _op(g: Tensor, u: Tensor) -> Tensor:
    g, u = g.contiguous(), u.contiguous()
    y = torch.empty_like(g)
    hidden = g.shape[-1]
    grid, block = _grid(g.numel() // hidden, hidden)
    _silu_mul[grid](g, u, y, hidden, hidden, BLOCK=block)
    return y


@operation("silu_mul_halves(Tensor both) -> Tensor")
def _halves(both: Tensor) -> Tensor:
    flat = rows_of(both)
    hidden = flat.shape[-1] // 2
    y = torch.empty((*both.shape[:-1], hidden), dtype=both.dtype, device=both.device)
    grid, block = _grid(len(flat), hidden)
    _silu_mul[grid](flat, flat[:, hidden:], y, flat.stride(0), hidden, BLOCK=block)
    return y


@operation("silu_mul_backward(Tensor dy, Tensor g, Tensor u) -> (Tensor, Tensor)")
def _op_backward(dy: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    dy, g, u = dy.contiguous(), g.contiguous(), u.contiguous()
    dg, du = torch.empty_like(g), torch.empty_like(u)
    hidden = g.shape[-1]
    grid, block = _grid(g.numel() // hidden, hidden)
    _silu_mul_backward[grid](dy, g, u, dg, du, hidden, hidden, BLOCK=block)
    return dg, du


@operation("silu_mul_halves_backward(Tensor dy, Tensor both) -> Tensor")
def _halves_backward(dy: Tensor, both: Tensor) -> Tensor:
    flat = both.contiguous().view(-1, both.shape[-1])
    hidden = flat.shape[-1] // 2
    out = torch.empty_like(flat)
    grid, block = _grid(len(flat), hidden)
    _silu_mul_backward[grid](
        dy.contiguous(), flat, flat[:, hidden:], out, out[:, hidden:], 2 * hidden, hidden, BLOCK=block
    )
    return out.view(both.shape)


@_op.register_fake
def _(g: Tensor, u: Tensor) -> Tensor:
    return g.new_empty(g.shape)


@_halves.register_fake
def _(both: Tensor) -> Tensor:
    return both.new_empty((*both.shape[:-1], both.shape[-1] // 2))


@_op_backward.register_fake
def _(dy: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    return g.new_empty(g.shape), u.new_empty(u.shape)


@_halves_backward.register_fake
def _(dy: Tensor, both: Tensor) -> Tensor:
    return both.new_empty(both.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    dg, du = torch.ops.hybrid_nas.silu_mul_backward(dy, *ctx.saved_tensors)
    return dg, du


def _halves_gradient(ctx: Any, dy: Tensor) -> Tensor:
    return torch.ops.hybrid_nas.silu_mul_halves_backward(dy, *ctx.saved_tensors)  # type: ignore[no-any-return]


_op.register_autograd(_backward, setup_context=_save)
_halves.register_autograd(_halves_gradient, setup_context=_save)
