"""AdamW with clipping as Triton kernels: one launch a group for the gradients' squares, one for the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from hybrid_nas_kernels.adamw import Group

BLOCK, PARTS = 2048, 256
"""Values of a program at a time, and the most programs that sum squares of one group."""


@triton.jit
def _squares(gradient_ptr, partial_ptr, size, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        gradient = tl.load(gradient_ptr + start + i, mask=start + i < size, other=0.0).to(tl.float32)
        total += gradient * gradient
    tl.store(partial_ptr + tl.program_id(0), tl.sum(total, 0))


@triton.jit
def _step(
    master_ptr, gradient_ptr, mean_ptr, square_ptr, compute_ptr, partial_ptr, rates_ptr, step_ptr,
    size, parts, clip, weight_decay, beta1, beta2, log_beta1, log_beta2, eps,
    BLOCK: tl.constexpr, PARTS: tl.constexpr, COPY: tl.constexpr,
):  # fmt: skip
    """`partial` is summed again by every program, in one order: it is short."""
    part = tl.arange(0, PARTS)
    norm = tl.sqrt(tl.sum(tl.load(partial_ptr + part, mask=part < parts, other=0.0), 0))
    scale = tl.minimum(clip / (norm + 1e-6), 1.0)
    step = tl.load(step_ptr)
    rate = tl.load(rates_ptr + step)
    count = (step + 1).to(tl.float32)
    correction1 = 1 - tl.exp2(count * log_beta1)
    correction2 = 1 - tl.exp2(count * log_beta2)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    gradient = tl.load(gradient_ptr + i, mask=mask, other=0.0).to(tl.float32) * scale
    mean = tl.load(mean_ptr + i, mask=mask, other=0.0)
    mean += (gradient - mean) * (1 - beta1)
    square = tl.load(square_ptr + i, mask=mask, other=0.0) * beta2 + gradient * gradient * (1 - beta2)
    master = tl.load(master_ptr + i, mask=mask, other=0.0) * (1 - rate * weight_decay)
    master -= rate / correction1 * mean / (tl.sqrt(square / correction2) + eps)
    tl.store(mean_ptr + i, mean, mask=mask)
    tl.store(square_ptr + i, square, mask=mask)
    tl.store(master_ptr + i, master, mask=mask)
    if COPY:
        tl.store(compute_ptr + i, master.to(compute_ptr.dtype.element_ty), mask=mask)


def adamw_triton_(
    groups: Sequence[Group], rates: Tensor, step: Tensor, clip: float, betas: tuple[float, float], eps: float
) -> None:
    """As `adamw_`."""
    parts = [min(PARTS, triton.cdiv(group.master.numel(), BLOCK)) for group in groups]
    partial = torch.empty(sum(parts), dtype=torch.float32, device=step.device)
    for group, own, mine in zip(groups, parts, torch.split(partial, parts), strict=True):
        _squares[(own,)](group.gradient, mine, group.master.numel(), BLOCK=BLOCK)
    for group in groups:
        size = group.master.numel()
        _step[(triton.cdiv(size, BLOCK),)](
            group.master, group.gradient, group.mean, group.square, group.compute, partial, rates, step,
            size, len(partial), clip, group.weight_decay, *betas, *(math.log2(beta) for beta in betas), eps,
            BLOCK=BLOCK, PARTS=triton.next_power_of_2(len(partial)), COPY=group.compute is not group.master,
        )  # fmt: skip
