"""The end of a parallel hybrid for a few tokens: both norms as one Triton kernel, both projections one product."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.linear_step import linear_step


@triton.jit
def gated_norm(y_ptr, z_ptr, gain_ptr, out_ptr, eps, D: tl.constexpr, BLOCK: tl.constexpr):
    """One row: y silu(z) over its root mean square, times its gain."""
    i = tl.arange(0, BLOCK)
    value = tl.load(y_ptr + i, mask=i < D, other=0.0).to(tl.float32)
    z = tl.load(z_ptr + i, mask=i < D, other=0.0).to(tl.float32)
    value *= z * tl.sigmoid(z)
    inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / D + eps)
    gain = tl.load(gain_ptr + i, mask=i < D, other=0.0).to(tl.float32)
    tl.store(out_ptr + i, (value * inverse * gain).to(out_ptr.dtype.element_ty), mask=i < D)


@triton.jit
def signed_norm(
    attended_ptr, gain_ptr, out_ptr, eps, sign, V: tl.constexpr, BLOCK: tl.constexpr, CACHE: tl.constexpr
):  # fmt: skip
    """One row: attended over its root mean square, times its gain and `sign`. CACHE ".cg" reads what other programs of
    the launch have written."""
    i = tl.arange(0, BLOCK)
    value = tl.load(attended_ptr + i, mask=i < V, other=0.0, cache_modifier=CACHE).to(tl.float32)
    inverse = sign / tl.sqrt(tl.sum(value * value, 0) / V + eps)
    gain = tl.load(gain_ptr + i, mask=i < V, other=0.0).to(tl.float32)
    tl.store(out_ptr + i, (value * inverse * gain).to(out_ptr.dtype.element_ty), mask=i < V)


@triton.jit
def _norms(
    y_ptr, z_ptr, attended_ptr, y_gain_ptr, attended_gain_ptr, out_ptr, stride_y, stride_z, stride_attended, eps, sign,
    D: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program a row and half."""
    row = tl.program_id(0).to(tl.int64)
    if tl.program_id(1) == 0:
        out = out_ptr + row * (D + V)
        gated_norm(y_ptr + row * stride_y, z_ptr + row * stride_z, y_gain_ptr, out, eps, D, BLOCK)
    else:
        half = out_ptr + row * (D + V) + D
        signed_norm(attended_ptr + row * stride_attended, attended_gain_ptr, half, eps, sign, V, BLOCK, "")


def fuse_step(
    y: Tensor, z: Tensor, attended: Tensor, gains: tuple[Tensor, Tensor], sign: float, weight: Tensor, eps: float
) -> Tensor:
    """As `fuse_heads` with both norms, in one group, and the sum of the halves' projections, the attention's times
    `sign`; `weight` (width, d_ssm + values) is the two weights side by side. Rows (tokens, channels); no gradients."""
    y, z, attended = (v if v.stride(-1) == 1 else v.contiguous() for v in (y, z, attended))
    rows, d_ssm = y.shape
    values = attended.shape[1]
    out = torch.empty((rows, d_ssm + values), dtype=y.dtype, device=y.device)
    block = triton.next_power_of_2(max(d_ssm, values))
    _norms[(rows, 2)](
        y, z, attended, *gains, out, y.stride(0), z.stride(0), attended.stride(0), eps, float(sign),
        D=d_ssm, V=values, BLOCK=block, num_warps=8 if block > 1024 else 4,
    )  # fmt: skip
    return linear_step(out, weight)
