"""RMSNorm, plain or behind a gate, as Triton kernels: one pass over the rows each way. The linear map is torch's."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.triton_sums import alignment, rows_of, sum_rows

PROGRAMS = 528
"""Programs of a backward pass, each with its own sum of the weight's gradient: a few for every multiprocessor."""


def norm_linear_triton(
    x: Tensor, norm: Tensor, weight: Tensor, parts: tuple[int, ...], eps: float
) -> tuple[Tensor, ...]:
    """As `norm_linear`, for float32 and bfloat16; `norm` may be float32 beside bfloat16 tokens. The parts are views of
    one output."""
    y = F.linear(rms_norm(x, norm, eps), weight)
    return (y,) if len(parts) == 1 else torch.split(y, list(parts), dim=-1)


def rms_norm(x: Tensor, norm: Tensor, eps: float) -> Tensor:
    """x / rms(x) * norm over the last dimension, in the dtype of x."""
    return torch.ops.hybrid_nas.rms_norm(x, None, norm, 1, eps)[0]  # type: ignore[no-any-return]


def gated_rms_norm(y: Tensor, z: Tensor, norm: Tensor, groups: int, eps: float) -> Tensor:
    """y silu(z) / rms of it, times norm, over each of `groups` parts of the last dimension, in the dtype of y."""
    return torch.ops.hybrid_nas.rms_norm(y, z, norm, groups, eps)[0]  # type: ignore[no-any-return]


def add_rms_norm(x: Tensor, y: Tensor, norm: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y, and its rms_norm, in one pass; their gradients too."""
    total, n, _ = torch.ops.hybrid_nas.add_rms_norm(x, y, norm, eps)
    return total, n


@triton.jit
def _normalise(
    x_ptr, z_ptr, weight_ptr, y_ptr, sum_ptr, inverse_ptr, rows, stride_x, stride_z, eps,
    ALIGN_X: tl.constexpr, ALIGN_Z: tl.constexpr,
    W: tl.constexpr, BW: tl.constexpr, BR: tl.constexpr, GROUPS: tl.constexpr,
    GATED: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    """The norm of x; GATED: of x silu(z); ADDED: of x + z, which is kept."""
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    part = tl.program_id(1)
    w = tl.arange(0, BW)
    mask = (r < rows)[:, None] & (w < W)[None, :]
    column = part * W + w[None, :]
    value = tl.load(x_ptr + r[:, None] * (stride_x * ALIGN_X) + column, mask=mask, other=0.0).to(tl.float32)
    if GATED:
        z = tl.load(z_ptr + r[:, None] * (stride_z * ALIGN_Z) + column, mask=mask, other=0.0).to(tl.float32)
        value *= z * tl.sigmoid(z)
    if ADDED:
        value += tl.load(z_ptr + r[:, None] * (stride_z * ALIGN_Z) + column, mask=mask, other=0.0).to(tl.float32)
        kept = value.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + r[:, None] * (W * GROUPS) + column, kept, mask=mask)
        value = kept.to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(value * value, 1) / W + eps)
    weight = tl.load(weight_ptr + part * W + w, mask=w < W, other=0.0).to(tl.float32)
    y = value * inverse[:, None] * weight[None, :]
    tl.store(y_ptr + r[:, None] * (W * GROUPS) + column, y.to(y_ptr.dtype.element_ty), mask=mask)
    tl.store(inverse_ptr + r * GROUPS + part, inverse, mask=r < rows)


@triton.jit
def _normalise_backward(
    dy_ptr, x_ptr, z_ptr, weight_ptr, inverse_ptr, dx_ptr, dz_ptr, dweight_ptr, rows, stride_x, stride_z,
    ALIGN_X: tl.constexpr, ALIGN_Z: tl.constexpr,
    W: tl.constexpr, BW: tl.constexpr, BR: tl.constexpr, GROUPS: tl.constexpr,
    GATED: tl.constexpr, ADDED: tl.constexpr,
):  # fmt: skip
    """ADDED: z is the gradient that x has beside the norm's."""
    program = tl.program_id(0)
    part = tl.program_id(1)
    w = tl.arange(0, BW)
    column = part * W + w[None, :]
    weight = tl.load(weight_ptr + part * W + w, mask=w < W, other=0.0).to(tl.float32)
    dweight = tl.zeros((BW,), tl.float32)
    for block in range(program, tl.cdiv(rows, BR), tl.num_programs(0)):
        r = (block * BR + tl.arange(0, BR)).to(tl.int64)
        mask = (r < rows)[:, None] & (w < W)[None, :]
        out = r[:, None] * (W * GROUPS) + column
        dy = tl.load(dy_ptr + out, mask=mask, other=0.0).to(tl.float32)
        x = tl.load(x_ptr + r[:, None] * (stride_x * ALIGN_X) + column, mask=mask, other=0.0).to(tl.float32)
        inverse = tl.load(inverse_ptr + r * GROUPS + part, mask=r < rows, other=0.0)[:, None]
        value = x
        z = x
        gate = x
        sigmoid = x
        if GATED:
            z = tl.load(z_ptr + r[:, None] * (stride_z * ALIGN_Z) + column, mask=mask, other=0.0).to(tl.float32)
            sigmoid = tl.sigmoid(z)
            gate = z * sigmoid
            value = x * gate
        n = value * inverse
        dweight += tl.sum(dy * n, 0)
        dn = dy * weight[None, :]
        dvalue = (dn - n * (tl.sum(dn * n, 1) / W)[:, None]) * inverse
        if GATED:
            dz = dvalue * x * sigmoid * (1 + z * (1 - sigmoid))
            tl.store(dz_ptr + out, dz.to(dz_ptr.dtype.element_ty), mask=mask)
            dvalue *= gate
        if ADDED:
            dvalue += tl.load(z_ptr + r[:, None] * (stride_z * ALIGN_Z) + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(dx_ptr + out, dvalue.to(dx_ptr.dtype.element_ty), mask=mask)
    tl.store(dweight_ptr + program * (W * GROUPS) + part * W + w, dweight, mask=w < W)


def _blocks(width: int) -> dict[str, int]:
    BW = triton.next_power_of_2(width)
    return {"W": width, "BW": BW, "BR": max(1, 4096 // BW), "num_warps": 4 if BW <= 4096 else 8}


def _strides(*values: Tensor) -> tuple[int, ...]:
    return tuple(v.stride(0) // alignment(v.stride(0)) for v in values)


def _forward(
    x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float, total: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The norm and what it divided by. z is a gate, or with `total` what is added to x and kept there."""
    flat = rows_of(x)
    second = flat if z is None else rows_of(z)
    rows, channels = flat.shape
    blocks = _blocks(channels // groups)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    inverse = torch.empty((rows, groups), dtype=torch.float32, device=x.device)
    _normalise[(triton.cdiv(rows, blocks["BR"]), groups)](
        flat, second, weight.contiguous(), y, y if total is None else total, inverse,
        rows, *_strides(flat, second), eps,
        ALIGN_X=alignment(flat.stride(0)), ALIGN_Z=alignment(second.stride(0)),
        GROUPS=groups, GATED=z is not None and total is None, ADDED=total is not None, **blocks,
    )  # fmt: skip
    return y, inverse


def _gradients(
    dy: Tensor, x: Tensor, z: Tensor | None, weight: Tensor, inverse: Tensor, groups: int, added: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Of x, of the gate z (empty without one) and of the weight. `added`: z is a gradient to add to that of x."""
    flat = rows_of(x)
    second = flat if z is None else rows_of(z)
    rows, channels = flat.shape
    blocks = _blocks(channels // groups)
    programs = min(triton.cdiv(rows, blocks["BR"]), PROGRAMS)
    gated = z is not None and not added
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dz = torch.empty_like(dx) if gated else dx.new_empty(0)
    partial = torch.empty((programs, channels), dtype=torch.float32, device=x.device)
    _normalise_backward[(programs, groups)](
        dy.contiguous(), flat, second, weight.contiguous(), inverse, dx, dz, partial, rows, *_strides(flat, second),
        ALIGN_X=alignment(flat.stride(0)), ALIGN_Z=alignment(second.stride(0)),
        GROUPS=groups, GATED=gated, ADDED=added, **blocks,
    )  # fmt: skip
    return dx, dz, sum_rows(partial, weight.dtype)


@operation("rms_norm(Tensor x, Tensor? z, Tensor weight, int groups, float eps) -> (Tensor, Tensor)")
def _rms_norm(x: Tensor, z: Tensor | None, weight: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    return _forward(x, z, weight, groups, eps)


@_rms_norm.register_fake
def _(x: Tensor, z: Any, weight: Tensor, groups: int, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((x.numel() // x.shape[-1], groups), dtype=torch.float32)


@operation(
    "rms_norm_backward(Tensor dy, Tensor x, Tensor? z, Tensor weight, Tensor inverse, int groups) -> "
    "(Tensor, Tensor, Tensor)"
)
def _rms_norm_backward(
    dy: Tensor, x: Tensor, z: Tensor | None, weight: Tensor, inverse: Tensor, groups: int
) -> tuple[Tensor, Tensor, Tensor]:
    return _gradients(dy, x, z, weight, inverse, groups)


@_rms_norm_backward.register_fake
def _(dy: Tensor, x: Tensor, z: Any, weight: Tensor, inverse: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(0 if z is None else x.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, z, weight, groups, _ = inputs
    ctx.save_for_backward(x, z, weight, output[1])
    ctx.groups = groups
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, z, weight, inverse = ctx.saved_tensors
    dx, dz, dweight = torch.ops.hybrid_nas.rms_norm_backward(dy, x, z, weight, inverse, ctx.groups)
    return dx, None if z is None else dz, dweight, None, None


_rms_norm.register_autograd(_backward, setup_context=_save)


@operation("add_rms_norm(Tensor x, Tensor y, Tensor weight, float eps) -> (Tensor, Tensor, Tensor)")
def _add_rms_norm(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return total, *_forward(x, y, weight, 1, eps, total)


@_add_rms_norm.register_fake
def _(x: Tensor, y: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    rows = x.numel() // x.shape[-1]
    return x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty((rows, 1), dtype=torch.float32)


@operation(
    "add_rms_norm_backward(Tensor dn, Tensor? dtotal, Tensor total, Tensor weight, Tensor inverse) -> (Tensor, Tensor)"
)
def _add_rms_norm_backward(
    dn: Tensor, dtotal: Tensor | None, total: Tensor, weight: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor]:
    dx, _, dweight = _gradients(dn, total, dtotal, weight, inverse, 1, added=dtotal is not None)
    return dx, dweight


@_add_rms_norm_backward.register_fake
def _(dn: Tensor, dtotal: Any, total: Tensor, weight: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    return total.new_empty(total.shape), weight.new_empty(weight.shape)


def _added_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    total, _, inverse = output
    ctx.save_for_backward(total, inputs[2], inverse)
    ctx.set_materialize_grads(False)


def _added_gradient(ctx: Any, dtotal: Tensor | None, dn: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dn is None:
        return dtotal, dtotal, None, None
    dx, dweight = torch.ops.hybrid_nas.add_rms_norm_backward(dn, dtotal, *ctx.saved_tensors)
    return dx, dx, dweight, None


_add_rms_norm.register_autograd(_added_gradient, setup_context=_added_save)
