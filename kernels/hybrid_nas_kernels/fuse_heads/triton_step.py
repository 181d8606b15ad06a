"""The end of a parallel hybrid for a few tokens: both norms as one Triton kernel, both projections one product."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F


@triton.jit
def _norms(
    y_ptr, z_ptr, attended_ptr, y_gain_ptr, attended_gain_ptr, out_ptr, stride_y, stride_z, stride_attended, eps, sign,
    D: tl.constexpr, V: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program a row and half: y silu(z), or attended, over its root mean square, times its gain."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK)
    if tl.program_id(1) == 0:
        value = tl.load(y_ptr + row * stride_y + i, mask=i < D, other=0.0).to(tl.float32)
        z = tl.load(z_ptr + row * stride_z + i, mask=i < D, other=0.0).to(tl.float32)
        value *= z * tl.sigmoid(z)
        inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / D + eps)
        gain = tl.load(y_gain_ptr + i, mask=i < D, other=0.0).to(tl.float32)
        tl.store(out_ptr + row * (D + V) + i, (value * inverse * gain).to(out_ptr.dtype.element_ty), mask=i < D)
    else:
        value = tl.load(attended_ptr + row * stride_attended + i, mask=i < V, other=0.0).to(tl.float32)
        inverse = sign / tl.sqrt(tl.sum(value * value, 0) / V + eps)
        gain = tl.load(attended_gain_ptr + i, mask=i < V, other=0.0).to(tl.float32)
        tl.store(out_ptr + row * (D + V) + D + i, (value * inverse * gain).to(out_ptr.dtype.element_ty), mask=i < V)


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
    return F.linear(out, weight)
