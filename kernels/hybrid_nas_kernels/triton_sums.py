"""What the Triton ways share. Above all sums over programs: each program of a backward pass leaves its share of a
weight's gradient as a row; here they add up, always in the same order."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 8192


@triton.jit
def _sum_rows(x_ptr, y_ptr, z_ptr, rows, columns, first, BR: tl.constexpr, BC: tl.constexpr):
    """The first columns go to y, the others to z."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    r = tl.arange(0, BR)
    total = tl.zeros((BR, BC), tl.float32)
    for start in range(0, rows, BR):
        mask = (start + r < rows)[:, None] & (c < columns)[None, :]
        total += tl.load(x_ptr + (start + r)[:, None] * columns + c[None, :], mask=mask, other=0.0)
    sums = tl.sum(total, 0)
    tl.store(y_ptr + c, sums.to(y_ptr.dtype.element_ty), mask=c < tl.minimum(first, columns))
    tl.store(z_ptr + (c - first), sums.to(z_ptr.dtype.element_ty), mask=(c >= first) & (c < columns))


def sum_rows(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """x (rows, ...) float32, contiguous -> its sum over rows, in `dtype`."""
    y = torch.empty(x.shape[1:], dtype=dtype, device=x.device)
    _sum(x, y, y, x[0].numel())
    return y


def sum_rows_apart(
    x: Tensor, first: int, dtypes: tuple[torch.dtype, torch.dtype] = (torch.float32, torch.float32)
) -> tuple[Tensor, Tensor]:
    """x (rows, columns) float32, contiguous -> the sums over rows of its `first` columns and of the others."""
    y = torch.empty(first, dtype=dtypes[0], device=x.device)
    z = torch.empty(x.shape[1] - first, dtype=dtypes[1], device=x.device)
    _sum(x, y, z, first)
    return y, z


def _sum(x: Tensor, y: Tensor, z: Tensor, first: int) -> None:
    rows, columns = len(x), x[0].numel()
    BC = max(8, min(32, triton.next_power_of_2(columns)))
    BR = min(TILE // BC, triton.next_power_of_2(rows))
    _sum_rows[(triton.cdiv(columns, BC),)](x, y, z, rows, columns, first, BR=BR, BC=BC, num_warps=8)


def rows_of(value: Tensor) -> Tensor:
    """(..., channels) as rows (n, channels) with no gaps inside a row; a view where strides allow it."""
    rows = value.flatten(0, -2) if value.ndim != 2 else value
    return rows if rows.stride(-1) == 1 else rows.contiguous()


def alignment(stride: int) -> int:
    """The largest power of two, up to 16, that divides a stride: what lets a kernel read a row in wide pieces."""
    return math.gcd(stride, 16)
