"""Gate, RMSNorm in groups and a linear map in one step, as in norm_linear/folded.py: the norm's weight is folded into
the map's, and the backward pass is written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hybrid_nas_kernels.matmul import input_gradient, linear, weight_gradient
from hybrid_nas_kernels.norm_linear.folded import normalise, normalise_backward


def gated_norm_linear_folded(y: Tensor, z: Tensor, norm: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
    """As `gated_norm_linear`. Differentiable once."""
    out: Tensor = _Folded.apply(y, z, norm, weight, groups, eps)  # type: ignore[no-untyped-call]
    return out


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, z: Tensor, norm: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
        n, inverse = normalise(F.silu(z).mul_(y).view(*y.shape[:-1], groups, -1), eps)
        folded = weight * norm
        ctx.save_for_backward(y, z, inverse, norm, weight, folded)
        return linear(n.view(y.shape), folded)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        y, z, inverse, norm, weight, folded = ctx.saved_tensors
        dout = dout.reshape(-1, dout.shape[-1])
        gate = F.silu(z)  # cheaper to compute again than to keep: kept, it leaves the cache
        n = (y * gate).view(*y.shape[:-1], inverse.shape[-2], -1).mul_(inverse)
        dfolded = weight_gradient(dout, n.view(-1, y.shape[-1]))
        dgated = normalise_backward(input_gradient(dout, folded).view(n.shape), n, inverse).view(y.shape)
        dz = torch.ops.aten.silu_backward(dgated * y, z)
        dnorm = (dfolded * weight).sum(0)
        return dgated.mul_(gate), dz, dnorm, dfolded.mul_(norm), None, None
