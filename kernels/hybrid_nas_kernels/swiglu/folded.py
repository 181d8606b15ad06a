"""RMSNorm and a SwiGLU feed-forward network in one step, as in norm_linear/folded.py: the norm's weight is folded into
gate and up, and the backward pass is written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hybrid_nas_kernels.matmul import input_gradient, linear, weight_gradient
from hybrid_nas_kernels.norm_linear.folded import normalise, normalise_backward


def swiglu_folded(x: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
    """As `swiglu`. Differentiable once."""
    out: Tensor = _Folded.apply(x, norm, gate, up, down, eps)  # type: ignore[no-untyped-call]
    return out


class _Folded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
        n, inverse = normalise(x, eps)
        gate_n, up_n = gate * norm, up * norm
        g, u = linear(n, gate_n), linear(n, up_n)
        ctx.save_for_backward(n, inverse, norm, gate, up, down, gate_n, up_n, g, u)
        return linear(F.silu(g).mul_(u), down)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        n, inverse, norm, gate, up, down, gate_n, up_n, g, u = ctx.saved_tensors
        flat, g, u = (value.view(-1, value.shape[-1]) for value in (n, g, u))
        dout = dout.reshape(flat.shape)
        s = F.silu(g)  # cheaper to compute again than to keep: kept, it leaves the cache
        dhidden = input_gradient(dout, down)
        du = dhidden * s
        ddown = weight_gradient(dout, s.mul_(u))
        dg = torch.ops.aten.silu_backward(dhidden.mul_(u), g)
        dn = input_gradient(dg, gate_n).add_(input_gradient(du, up_n)).view(n.shape)
        dgate, dup = weight_gradient(dg, flat), weight_gradient(du, flat)
        dnorm = (dgate * gate).sum(0).add_((dup * up).sum(0))
        return normalise_backward(dn, n, inverse), dnorm, dgate.mul_(norm), dup.mul_(norm), ddown, None
