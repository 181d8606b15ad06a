"""Tensors that lie side by side in memory: what one product, in decoding, can read or write as a whole.

A decoding step of a few sequences reads each weight once, and a product of few rows ends some microseconds after its
bytes are read. So the weights that read one input are laid one behind another, without changing what they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hybrid_nas_kernels.linear_step import linear_step

ALIGNED = 16
"""What the rows of adjoined weights are a multiple of: each row that their product writes begins where a kernel can
read 16 bytes at a time. 8 columns of 2 bytes are enough for that, but Triton knows it of multiples of 16 alone."""


def adjacent(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    """The tensors as one, a view, where each begins in memory where the one before it ends along `dim`; else None."""
    first = tensors[0]
    dim %= first.ndim
    sizes, expected = [t.shape[dim] for t in tensors], first.storage_offset()
    for tensor, size in zip(tensors, sizes, strict=True):
        if (
            tensor.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
            or tensor.storage_offset() != expected
            or (tensor.dtype, tensor.stride()) != (first.dtype, first.stride())
        ):
            return None
        expected += size * first.stride(dim)
    shape = [sum(sizes) if i == dim else size for i, size in enumerate(first.shape)]
    return first.as_strided(shape, first.stride())


def side_by_side(tensors: Sequence[Tensor], dim: int = -1) -> Tensor:
    """The tensors as one along `dim`: a view where they lie so, a copy where they do not."""
    whole = adjacent(tensors, dim)
    return torch.cat(list(tensors), dim) if whole is None else whole


def adjoin(weights: Sequence[Tensor], dim: int = 0) -> None:
    """Lay the weights side by side along `dim`: their values stay, their memory is one tensor's. Rows of zeros behind
    the last make them a multiple of ALIGNED."""
    whole = adjacent([w.data for w in weights], dim)
    if whole is None or (dim == 0 and _widened(whole) is None):
        rest = list(weights[0].shape)
        rest[dim] = -sum(w.shape[dim] for w in weights) % ALIGNED if dim == 0 else 0
        whole = torch.cat([*(w.data for w in weights), weights[0].data.new_zeros(rest)], dim)
        for weight, part in zip(
            weights, torch.split(whole, [*(w.shape[dim] for w in weights), rest[dim]], dim), strict=False
        ):
            weight.data = part


def products(n: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """n (rows, width) times each of `weights` (outputs, width) transposed; adjacent weights by one product, whose parts
    are views. For a few rows and, where it is to be fast, without gradients."""
    whole = None if torch.is_grad_enabled() or len(weights) == 1 else adjacent(weights)
    if whole is None:
        return tuple(_product(n, weight) for weight in weights)
    return torch.split(_product(n, whole), [len(weight) for weight in weights], dim=-1)


def _product(n: Tensor, weight: Tensor) -> Tensor:
    """With the rows that lie behind the weight's where its own are no multiple of ALIGNED: cuBLAS takes twice as long
    for the odd number."""
    wide = None if torch.is_grad_enabled() else _widened(weight)
    return linear_step(n, weight) if wide is None else linear_step(n, wide)[..., : len(weight)]


def _widened(weight: Tensor) -> Tensor | None:
    """weight (outputs, width) and the rows behind it in its memory, up to a multiple of ALIGNED; None without room."""
    more = -len(weight) % ALIGNED
    if more == 0:
        return weight
    rows, (across, along) = len(weight) + more, weight.stride()
    end = weight.storage_offset() + (rows - 1) * across + (weight.shape[1] - 1) * along + 1
    if end * weight.element_size() > weight.untyped_storage().nbytes():
        return None
    return weight.as_strided((rows, weight.shape[1]), (across, along))
