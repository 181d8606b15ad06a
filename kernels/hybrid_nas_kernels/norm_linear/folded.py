"""RMSNorm and a linear map in one step, the norm's weight folded into the map's, backward by hand.

    (n * norm) W^T = n (W diag(norm))^T,    n = x / rms(x)

The fold multiplies a weight matrix once instead of every token, and in the backward pass the gradient of `norm` comes
from two weight-sized matrices instead of a reduction over tokens. Each part of the output is a tensor of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hybrid_nas_kernels.matmul import input_gradient, linear, weight_gradient


def norm_linear_folded(
    x: Tensor, norm: Tensor, weight: Tensor, parts: tuple[int, ...], eps: float
) -> tuple[Tensor, ...]:
    """As `norm_linear`. Differentiable once."""
    outputs: tuple[Tensor, ...] = _Folded.apply(x, norm, weight, parts, eps)  # type: ignore[no-untyped-call]
    return outputs


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / rms(x) over the last dimension, and 1 / rms(x) with that dimension kept."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = torch.addcmul(x.new_full((), eps), length, length, value=1 / x.shape[-1]).rsqrt_()
    return x * inverse, inverse


def normalise_backward(dn: Tensor, n: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of x from that of n = x / rms(x); overwrites `dn` and returns it."""
    along = (dn * n).sum(-1, keepdim=True)
    return dn.addcmul_(n, along, value=-1 / n.shape[-1]).mul_(inverse)


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm: Tensor, weight: Tensor, parts: tuple[int, ...], eps: float
    ) -> tuple[Tensor, ...]:
        n, inverse = normalise(x, eps)
        folded = weight * norm
        ctx.save_for_backward(n, inverse, norm, weight, folded)
        ctx.parts = parts
        return tuple(linear(n, part) for part in torch.split(folded, list(parts)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *douts: Tensor) -> tuple[Tensor | None, ...]:
        n, inverse, norm, weight, folded = ctx.saved_tensors
        flat = n.view(-1, n.shape[-1])
        dfolded = torch.empty_like(weight)
        dn, start = None, 0
        for dout, part in zip(douts, torch.split(folded, list(ctx.parts)), strict=True):
            dout = dout.reshape(-1, dout.shape[-1])
            through = input_gradient(dout, part)
            dn = through if dn is None else dn.add_(through)
            dfolded[start : start + dout.shape[-1]] = weight_gradient(dout, flat)
            start += dout.shape[-1]
        assert dn is not None
        dnorm = (dfolded * weight).sum(0)
        return normalise_backward(dn.view(n.shape), n, inverse), dnorm, dfolded.mul_(norm), None, None
