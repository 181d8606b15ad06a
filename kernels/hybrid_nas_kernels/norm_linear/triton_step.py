"""The sum of a residual stream and of the parts that a product of few rows left, and its norm, as one Triton kernel."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.triton_sums import rows_of

WARPS = 8


@triton.jit
def _add_parts_and_norm(
    x_ptr, parts_ptr, weight_ptr, sum_ptr, y_ptr, stride_x, count, eps,
    PARTS: tl.constexpr, W: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    """A row a program. The parts are added first, always in the same order."""
    row = tl.program_id(0).to(tl.int64)
    w = tl.arange(0, BW)
    total = tl.zeros((BW,), tl.float32)
    for part in tl.static_range(PARTS):
        total += tl.load(parts_ptr + part * count + row * W + w, mask=w < W, other=0.0)
    total += tl.load(x_ptr + row * stride_x + w, mask=w < W, other=0.0).to(tl.float32)
    kept = total.to(sum_ptr.dtype.element_ty)
    tl.store(sum_ptr + row * W + w, kept, mask=w < W)
    value = kept.to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / W + eps)
    weight = tl.load(weight_ptr + w, mask=w < W, other=0.0).to(tl.float32)
    tl.store(y_ptr + row * W + w, (value * inverse * weight).to(y_ptr.dtype.element_ty), mask=w < W)


def add_parts_rms_norm(x: Tensor, parts: Tensor, norm: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (rows, width) plus `parts` (parts, rows, width), float32, and its rms_norm times `norm`; no gradients."""
    return torch.ops.hybrid_nas.add_parts_rms_norm(x, parts, norm, eps)  # type: ignore[no-any-return]


@operation("add_parts_rms_norm(Tensor x, Tensor parts, Tensor weight, float eps) -> (Tensor, Tensor)")
def _add_parts_rms_norm(x: Tensor, parts: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x, parts, weight = rows_of(x), parts.contiguous(), weight.contiguous()
    rows, width = x.shape
    if parts.shape[1:] != x.shape or weight.shape != (width,):
        raise ValueError(
            "add_parts_rms_norm: x (rows, width), parts (parts, rows, width), weight (width,), found "
            f"{tuple(x.shape)}, {tuple(parts.shape)}, {tuple(weight.shape)}"
        )
    total, y = (torch.empty((rows, width), dtype=x.dtype, device=x.device) for _ in range(2))
    _add_parts_and_norm[(rows,)](
        x, parts, weight, total, y, x.stride(0), total.numel(), eps,
        PARTS=len(parts), W=width, BW=triton.next_power_of_2(width), num_warps=WARPS,
    )  # fmt: skip
    return total, y


@_add_parts_rms_norm.register_fake
def _(x: Tensor, parts: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)
