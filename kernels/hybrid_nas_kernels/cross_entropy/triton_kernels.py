"""Cross-entropy as one Triton kernel that never writes probabilities: the loss of each row, and the logits' gradient in
the place of the logits. A row is read once where a program can hold it, else twice."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.operations import operation

BLOCK, WHOLE = 4096, 1 << 16
"""Logits of a row at a time, and the longest row that is held whole."""
LOGITS_AT_ONCE = 1 << 30
"""Logits that `linear_cross_entropy_triton` holds at a time: 2 GiB in bfloat16."""


def cross_entropy_triton(logits: Tensor, targets: Tensor) -> Tensor:
    """As `cross_entropy`, for float32 and bfloat16, summed in float32. Differentiable once."""
    rows = targets.numel()
    weights = torch.full((rows,), 1 / rows, dtype=torch.float32, device=logits.device)
    total: Tensor = torch.ops.hybrid_nas.cross_entropy(logits.reshape(rows, -1), targets.reshape(-1), weights)[0]
    return total


def linear_cross_entropy_triton(
    x: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """As `linear_cross_entropy`. Logits exist for a part of the rows at a time."""
    total, losses, _, _ = torch.ops.hybrid_nas.linear_cross_entropy(x, weight, targets, row_weights)
    return total, losses


@triton.jit
def _cross_entropy(
    logits_ptr, targets_ptr, weights_ptr, losses_ptr, gradient_ptr, stride, vocab,
    BLOCK: tl.constexpr, GRADIENT: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * stride
    i = tl.arange(0, BLOCK)
    target = tl.load(targets_ptr + row)
    wanted = tl.load(logits_ptr + target).to(tl.float32)  # now: the gradient may overwrite it
    if HELD:
        x = tl.load(logits_ptr + i, mask=i < vocab, other=float("-inf")).to(tl.float32)
        most = tl.maximum(tl.max(x, 0), -1e30)  # finite, so that no difference of infinities arises
        log_sum = most + tl.log(tl.sum(tl.exp(x - most), 0))
    else:
        top = tl.full((BLOCK,), -1e30, tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        for first in range(0, vocab, BLOCK):
            x = tl.load(logits_ptr + first + i, mask=first + i < vocab, other=float("-inf")).to(tl.float32)
            higher = tl.maximum(top, x)
            total = total * tl.exp(top - higher) + tl.exp(x - higher)
            top = higher
        most = tl.max(top, 0)
        log_sum = most + tl.log(tl.sum(total * tl.exp(top - most), 0))
    tl.store(losses_ptr + row, log_sum - wanted)
    if GRADIENT:
        weight = tl.load(weights_ptr + row)
        gradient_ptr += row * vocab
        for first in range(0, vocab, BLOCK):
            if not HELD:
                x = tl.load(logits_ptr + first + i, mask=first + i < vocab, other=float("-inf")).to(tl.float32)
            y = (tl.exp(x - log_sum) - tl.where(first + i == target, 1.0, 0.0)) * weight
            tl.store(gradient_ptr + first + i, y.to(gradient_ptr.dtype.element_ty), mask=first + i < vocab)


def _run(logits: Tensor, targets: Tensor, weights: Tensor, losses: Tensor, gradient: Tensor | None) -> None:
    rows, vocab = logits.shape
    block = triton.next_power_of_2(vocab)
    held = block <= WHOLE
    block = block if held else BLOCK
    _cross_entropy[(rows,)](
        logits, targets.contiguous(), weights.contiguous(), losses,
        losses if gradient is None else gradient, logits.stride(0), vocab,
        BLOCK=block, GRADIENT=gradient is not None, HELD=held, num_warps=max(1, min(32, block // 2048)) if held else 8,
    )  # fmt: skip


@operation("cross_entropy(Tensor logits, Tensor targets, Tensor weights) -> (Tensor, Tensor)")
def _op(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    losses = torch.empty((len(logits),), dtype=torch.float32, device=logits.device)
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    _run(logits, targets, weights, losses, gradient)
    return torch.dot(losses, weights), gradient


@_op.register_fake
def _(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    return weights.new_empty(()), logits.new_empty(logits.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dtotal: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return gradient * dtotal.to(gradient.dtype), None, None


_op.register_autograd(_backward, setup_context=_save)


@operation(
    "linear_cross_entropy(Tensor x, Tensor weight, Tensor targets, Tensor row_weights) -> (Tensor, "
    "Tensor, Tensor, Tensor)"
)
def _linear(x: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, vocab = len(x), len(weight)
    losses = torch.empty((rows,), dtype=torch.float32, device=x.device)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    at_once = max(1, min(rows, LOGITS_AT_ONCE // vocab))
    dweight = torch.zeros(weight.shape, dtype=torch.float32, device=x.device) if at_once < rows else weight
    for first in range(0, rows, at_once):
        part = slice(first, min(first + at_once, rows))
        logits = torch.mm(x[part], weight.t())
        _run(logits, targets[part], row_weights[part], losses[part], logits)  # logits become their gradient
        torch.mm(logits, weight, out=dx[part])
        added = torch.mm(logits.t(), x[part])
        dweight = dweight.add_(added) if at_once < rows else added
    return torch.dot(losses, row_weights), losses, dx, dweight.to(weight.dtype)


@_linear.register_fake
def _(x: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        row_weights.new_empty(()),
        row_weights.new_empty(row_weights.shape),
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
    )


def _linear_save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.set_materialize_grads(False)


def _linear_backward(ctx: Any, dtotal: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    dx, dweight = (gradient * dtotal.to(gradient.dtype) for gradient in ctx.saved_tensors)
    return dx, dweight, None, None


_linear.register_autograd(_linear_backward, setup_context=_linear_save)
