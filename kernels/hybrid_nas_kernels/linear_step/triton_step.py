"""A product of few rows as a Triton kernel: each program multiplies a block of the weight's rows, or a part of their
channels, with all rows of the input.

Such a product is as fast as the weight is read. The weight's block stands where tensor cores take the many rows, and
the few tokens are the columns of the smallest product that they have.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.linear_step.blocks import ROWS, WHOLE, Blocks, blocks_of, too_old
from hybrid_nas_kernels.operations import operation

BLOCK = 512
"""Values a program where parts are added."""


def linear_step_triton(x: Tensor, weight: Tensor) -> Tensor:
    """As `linear_step`, for float32 and bfloat16 and up to ROWS rows; without gradients."""
    _refuse(x, weight)
    return torch.ops.hybrid_nas.linear_step(x, weight)  # type: ignore[no-any-return]


def linear_step_parts_triton(x: Tensor, weight: Tensor) -> Tensor:
    """As `linear_step_triton`, with parts still to be added."""
    _refuse(x, weight)
    parts: Tensor = torch.ops.hybrid_nas.linear_step_parts(x, weight)
    return parts[0] if len(parts) == 1 else parts


def _refuse(x: Tensor, weight: Tensor) -> None:
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        raise ValueError("linear_step: the Triton way has no gradients; call it under torch.no_grad(), or F.linear")
    _check(x, weight)
    if not isinstance(_product, triton.JITFunction):  # in Triton's interpreter
        return
    if not x.is_cuda:
        raise ValueError(
            f"linear_step: the Triton way runs on a CUDA device, found {x.device}; the reference runs there, and the "
            "kernel in Triton's interpreter, where TRITON_INTERPRET=1 is set before Triton is imported"
        )
    if too_old():
        raise ValueError(f"linear_step: {too_old()}; the reference runs with any")


def _check(x: Tensor, weight: Tensor) -> None:
    """ValueError where the kernel does not have these."""
    if x.ndim != 2 or weight.ndim != 2:
        raise ValueError(
            "linear_step: the Triton way has x (rows, channels) and a weight (outputs, channels), found "
            f"{tuple(x.shape)} and {tuple(weight.shape)}; F.linear has other dimensions"
        )
    if x.shape[1] != weight.shape[1] or not x.shape[1]:
        raise ValueError(
            "linear_step: x (rows, channels) and the weight (outputs, channels) must have equally many channels, at "
            f"least 1, found {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if len(x) > ROWS:
        raise ValueError(f"linear_step: the Triton way has up to {ROWS} rows, found {len(x)}; the reference has any")
    if x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            "linear_step: the Triton way has x and weight both in float32 or both in bfloat16, found "
            f"{x.dtype} and {weight.dtype}; the reference has others".replace("torch.", "")
        )
    if x.device != weight.device:
        raise ValueError(f"linear_step: x and weight must be on one device, found {x.device} and {weight.device}")


def _reachable(value: Tensor, rows: int) -> Tensor:
    """`value`, copied where a row has gaps, or where `rows` of them are so far apart that 32 bits do not count it."""
    near = (rows - 1) * value.stride(0) + value.shape[1] < 1 << 31
    return value if value.stride(1) == 1 and near else value.contiguous()


@triton.jit
def _product(
    x_ptr, weight_ptr, out_ptr, outputs, inner, stride_x, stride_w, part,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BN rows of the weight by `part` channels, a multiple of BK, with all rows of x."""
    first_row = tl.program_id(0) * BN
    n = tl.arange(0, BN)
    present = (first_row + n < outputs)[:, None]
    weight_ptr += first_row.to(tl.int64) * stride_w
    split = tl.program_id(1)
    m = tl.arange(0, COLUMNS)
    total = tl.zeros((BN, COLUMNS), tl.float32)
    for first in range(split * part, tl.minimum((split + 1) * part, inner), BK):
        k = first + tl.arange(0, BK)
        weight = tl.load(
            weight_ptr + n[:, None] * stride_w + k[None, :], mask=present & (k < inner)[None, :], other=0.0,
            eviction_policy="evict_first",
        )  # fmt: skip
        x = tl.load(
            x_ptr + m[None, :] * stride_x + k[:, None], mask=(m < ROWS)[None, :] & (k < inner)[:, None], other=0.0
        )  # fmt: skip
        total = tl.dot(weight, x, total, input_precision=PRECISION)
    place = out_ptr + (split * ROWS + m[None, :]) * outputs + first_row + n[:, None]
    tl.store(place, total.to(out_ptr.dtype.element_ty), mask=present & (m < ROWS)[None, :])


@triton.jit
def _add(parts_ptr, out_ptr, count, SPLITS: tl.constexpr, BLOCK: tl.constexpr):
    """Always in the same order."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(parts_ptr + split * count + i, mask=i < count, other=0.0)
    tl.store(out_ptr + i, total.to(out_ptr.dtype.element_ty), mask=i < count)


def product_parts(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """x (rows, channels) times weight (outputs, channels) transposed, as (parts, rows, outputs) that are to be added:
    float32 where they are several, else in the dtype of x."""
    _check(x, weight)
    x, weight = _reachable(x, len(x)), _reachable(weight, blocks.rows)
    (rows, inner), outputs = x.shape, len(weight)
    part, splits = blocks.parts(inner)
    dtype = x.dtype if splits == 1 else torch.float32
    parts = torch.empty((splits, rows, outputs), dtype=dtype, device=x.device)
    _product[(triton.cdiv(outputs, blocks.rows), splits)](
        x, weight, parts, outputs, inner, x.stride(0), weight.stride(0), part,
        ROWS=rows, COLUMNS=ROWS, BN=blocks.rows, BK=blocks.channels,
        PRECISION="ieee" if x.dtype == torch.float32 else "tf32",
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    return parts


def product(x: Tensor, weight: Tensor, blocks: Blocks) -> Tensor:
    """`product_parts`, added where they are several, in the dtype of x."""
    parts = product_parts(x, weight, blocks)
    return parts[0] if len(parts) == 1 else add_parts(parts, x.dtype)


def add_parts(parts: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of float32 parts (parts, rows, outputs)."""
    out = torch.empty(parts.shape[1:], dtype=dtype, device=parts.device)
    _add[(triton.cdiv(out.numel(), BLOCK),)](parts, out, out.numel(), SPLITS=len(parts), BLOCK=BLOCK, num_warps=4)
    return out


@operation("linear_step(Tensor x, Tensor weight) -> Tensor")
def _linear_step(x: Tensor, weight: Tensor) -> Tensor:
    return product(x, weight, _blocks(x, weight))


def _blocks(x: Tensor, weight: Tensor, left: bool = False) -> Blocks:
    """The rule's; asked for by name at a shape that the rule has none for, those of one part."""
    _check(x, weight)
    return blocks_of(len(weight), weight.shape[1], left) or WHOLE


@_linear_step.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    _check(x, weight)
    return x.new_empty((len(x), len(weight)))


@operation("linear_step_parts(Tensor x, Tensor weight) -> Tensor")
def _linear_step_parts(x: Tensor, weight: Tensor) -> Tensor:
    return product_parts(x, weight, _blocks(x, weight, left=True))


@_linear_step_parts.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    _, splits = _blocks(x, weight, left=True).parts(weight.shape[1])
    return x.new_empty((splits, len(x), len(weight)), dtype=x.dtype if splits == 1 else torch.float32)
