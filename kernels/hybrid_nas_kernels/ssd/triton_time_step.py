"""Softplus of the time steps and its gradient as Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.triton_sums import rows_of, sum_rows


@triton.jit
def _softplus(dt_ptr, bias_ptr, out_ptr, rows, stride, H: tl.constexpr, BH: tl.constexpr, BR: tl.constexpr):
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    h = tl.arange(0, BH)
    mask = (r < rows)[:, None] & (h < H)[None, :]
    x = tl.load(dt_ptr + r[:, None] * stride + h[None, :], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)[None, :]
    y = tl.maximum(x, 0.0) + tl.log(1 + tl.exp(-tl.abs(x)))
    tl.store(out_ptr + r[:, None] * H + h[None, :], y, mask=mask)


@triton.jit
def _softplus_backward(
    dout_ptr, dt_ptr, bias_ptr, ddt_ptr, partial_ptr, rows, stride, H: tl.constexpr, BH: tl.constexpr, BR: tl.constexpr
):
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    h = tl.arange(0, BH)
    mask = (r < rows)[:, None] & (h < H)[None, :]
    x = tl.load(dt_ptr + r[:, None] * stride + h[None, :], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)[None, :]
    dout = tl.load(dout_ptr + r[:, None] * H + h[None, :], mask=mask, other=0.0)
    dx = dout * tl.sigmoid(x)
    tl.store(ddt_ptr + r[:, None] * H + h[None, :], dx.to(ddt_ptr.dtype.element_ty), mask=mask)
    tl.store(partial_ptr + tl.program_id(0) * H + h, tl.sum(dx, 0), mask=h < H)


def time_step_triton(dt: Tensor, bias: Tensor) -> Tensor:
    """As `time_step`, in float32."""
    return torch.ops.hybrid_nas.time_step(dt, bias)  # type: ignore[no-any-return]


def _softplus_blocks(heads: int, rows: int) -> dict[str, int]:
    BH = triton.next_power_of_2(heads)
    return {"H": heads, "BH": BH, "BR": max(1, min(4096 // BH, triton.next_power_of_2(rows)))}


@operation("time_step(Tensor dt, Tensor bias) -> Tensor")
def _time_step(dt: Tensor, bias: Tensor) -> Tensor:
    flat = rows_of(dt)
    rows, heads = flat.shape
    out = torch.empty(dt.shape, dtype=torch.float32, device=dt.device)
    blocks = _softplus_blocks(heads, rows)
    _softplus[(triton.cdiv(rows, blocks["BR"]),)](flat, bias, out, rows, flat.stride(0), **blocks)
    return out


@_time_step.register_fake
def _(dt: Tensor, bias: Tensor) -> Tensor:
    return dt.new_empty(dt.shape, dtype=torch.float32)


@operation("time_step_backward(Tensor dout, Tensor dt, Tensor bias) -> (Tensor, Tensor)")
def _time_step_backward(dout: Tensor, dt: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    flat = rows_of(dt)
    rows, heads = flat.shape
    blocks = _softplus_blocks(heads, rows)
    programs = triton.cdiv(rows, blocks["BR"])
    ddt = torch.empty(dt.shape, dtype=dt.dtype, device=dt.device)
    partial = torch.empty((programs, heads), dtype=torch.float32, device=dt.device)
    _softplus_backward[(programs,)](dout.contiguous(), flat, bias, ddt, partial, rows, flat.stride(0), **blocks)
    return ddt, sum_rows(partial, bias.dtype)


@_time_step_backward.register_fake
def _(dout: Tensor, dt: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return dt.new_empty(dt.shape), bias.new_empty(bias.shape)


def _time_step_save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _time_step_gradient(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
    ddt, dbias = torch.ops.hybrid_nas.time_step_backward(dout, *ctx.saved_tensors)
    return ddt, dbias


_time_step.register_autograd(_time_step_gradient, setup_context=_time_step_save)
