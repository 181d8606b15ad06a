"""RMSNorm and a SwiGLU feed-forward network as one node: products by `matmul`, all else compiled
(`hybrid_nas_kernels.native`). The mathematics is that of folded.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hybrid_nas_kernels.matmul import input_gradient, linear
from hybrid_nas_kernels.native import address, functions, weight_gradient


def swiglu_native(x: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
    """As `swiglu`, in float32 or float64. Differentiable once. Raises NoNativeWay."""
    out: Tensor = _Native.apply(x, norm, gate, up, down, eps)  # type: ignore[no-untyped-call]
    return out


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
        run, threads = functions(x.dtype), torch.get_num_threads()
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        n, inverse = torch.empty_like(flat), flat.new_empty(len(flat))
        run.norm(address(flat), address(n), address(inverse), *flat.shape, eps, threads)
        gate_n, up_n = gate * norm, up * norm
        g, u = linear(n, gate_n), linear(n, up_n)
        h = torch.empty_like(g)
        run.gate(address(g), address(u), address(h), *g.shape, threads)
        ctx.save_for_backward(n, inverse, norm, gate, up, down, gate_n, up_n, g, u)
        ctx.shape = x.shape
        return linear(h, down).view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        n, inverse, norm, gate, up, down, gate_n, up_n, g, u = ctx.saved_tensors
        run, threads = functions(n.dtype), torch.get_num_threads()
        dout = dout.reshape(n.shape)
        du = input_gradient(dout, down)
        dg, h = torch.empty_like(g), torch.empty_like(g)
        run.gate_backward(*map(address, (du, g, u, dg, h)), *g.shape, threads)
        ddown = weight_gradient(dout, h)
        dn = input_gradient(dg, gate_n).add_(input_gradient(du, up_n))
        dgate, dup = weight_gradient(dg, n), weight_gradient(du, n)
        dnorm = (dgate * gate).sum(0).add_((dup * up).sum(0))
        run.norm_backward(address(dn), address(n), address(inverse), *n.shape, threads)
        return dn.view(ctx.shape), dnorm, dgate.mul_(norm), dup.mul_(norm), ddown, None
