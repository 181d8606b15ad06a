"""The Mamba-2 mixer as one node: products by `matmul`, all else compiled (`hybrid_nas_kernels.native`).

One projection gives z, x, B, C and dt as columns of one matrix, which every pass reads and whose gradient every pass
writes in place. Kept for the backward pass: the normalised input, the projection, the convolution's output, the states
between chunks, and the scan's output before and after the gate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from hybrid_nas_kernels.matmul import input_gradient, linear
from hybrid_nas_kernels.native import address, functions, weight_gradient


def mamba2_native(
    x: Tensor,
    norm: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    gate_norm: Tensor,
    out_proj: Tensor,
    groups: int,
    eps: float,
) -> Tensor:
    """As `mamba2`, in float32 or float64. Differentiable once. Raises NoNativeWay."""
    weights = (in_proj, conv_weight, conv_bias, dt_bias, A_log, D, gate_norm, out_proj)
    y: Tensor = _Native.apply(x, norm, *weights, groups, eps)  # type: ignore[no-untyped-call]
    return y


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm: Tensor,
        in_proj: Tensor,
        conv_weight: Tensor,
        conv_bias: Tensor,
        dt_bias: Tensor,
        A_log: Tensor,
        D: Tensor,
        gate_norm: Tensor,
        out_proj: Tensor,
        groups: int,
        eps: float,
    ) -> Tensor:
        run, threads = functions(x.dtype), torch.get_num_threads()
        batch, tokens, width = x.shape
        (d_ssm,), (heads,), (channels, kernel) = gate_norm.shape, A_log.shape, conv_weight.shape
        rows, d_state = batch * tokens, (channels - d_ssm) // 2 // groups
        shape = (batch, tokens, heads, d_ssm // heads, groups, d_state)
        x, D, conv_bias = x.contiguous(), D.contiguous(), conv_bias.contiguous()
        n, inverse = x.new_empty(rows, width), x.new_empty(rows)
        run.norm(address(x), address(n), address(inverse), rows, width, eps, threads)
        in_folded, out_folded, taps = in_proj * norm, out_proj * gate_norm, conv_weight.t().contiguous()
        p = linear(n, in_folded)
        stride, z, xBC = p.shape[1], address(p), address(p[:, d_ssm:])
        u = x.new_empty(rows, channels)
        run.conv(xBC, stride, address(taps), address(conv_bias), address(u), batch, tokens, channels, kernel, threads)
        raw = p[:, d_ssm + channels :] + dt_bias
        dt, A = F.softplus(raw), -torch.exp(A_log)
        decay = torch.exp(dt * A)
        y, entering = x.new_empty(rows, d_ssm), x.new_empty(run.kept_states(*shape))
        run.scan(*map(address, (u, dt, decay, D, y, entering)), *shape, threads)
        m, gated_inverse = x.new_empty(rows, d_ssm), x.new_empty(rows, groups)
        share = d_ssm // groups
        run.gated_norm(address(y), z, stride, address(m), address(gated_inverse), rows, groups, share, eps, threads)
        ctx.save_for_backward(
            n, inverse, norm, in_proj, in_folded, p, taps, conv_bias, u, raw, dt, A, decay, D, y, entering, m
        )
        ctx.rest = (gated_inverse, gate_norm, out_proj, out_folded)
        ctx.shape = shape
        return linear(m, out_folded).view(batch, tokens, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        n, inverse, norm, in_proj, in_folded, p, taps, conv_bias, u, raw, dt, A, decay, D, y, entering, m = (
            ctx.saved_tensors
        )
        gated_inverse, gate_norm, out_proj, out_folded = ctx.rest
        run, threads = functions(n.dtype), torch.get_num_threads()
        batch, tokens, heads, _, groups, _ = ctx.shape
        rows, width = n.shape
        d_ssm, channels, kernel, stride = y.shape[1], u.shape[1], len(taps), p.shape[1]
        dout = dout.reshape(rows, -1)

        dout_folded = weight_gradient(dout, m)
        dy, dp = input_gradient(dout, out_folded), torch.empty_like(p)
        z, xBC, dz, dxBC = address(p), address(p[:, d_ssm:]), address(dp), address(dp[:, d_ssm:])
        run.gated_norm_backward(
            *map(address, (dy, m, gated_inverse, y)), z, dz, stride, rows, groups, d_ssm // groups, threads
        )
        du, ddt, dlog, dD = torch.empty_like(u), torch.empty_like(dt), torch.empty_like(dt), u.new_empty(batch, heads)
        run.scan_backward(*map(address, (u, dt, decay, D, dy, entering, du, ddt, dlog, dD)), *ctx.shape, threads)
        dtaps, dconv_bias = u.new_empty(batch, kernel, channels), u.new_empty(batch, channels)
        run.conv_backward(
            address(du), xBC, dxBC, stride, *map(address, (taps, conv_bias, dtaps, dconv_bias)),
            batch, tokens, channels, kernel, threads,
        )  # fmt: skip
        dA = (dlog * dt).sum(0)
        draw = ddt.addcmul_(dlog, A).mul_(torch.sigmoid(raw))
        dp[:, d_ssm + channels :] = draw
        din_folded = weight_gradient(dp, n)
        dn = input_gradient(dp, in_folded)
        run.norm_backward(address(dn), address(n), address(inverse), rows, width, threads)
        return (
            dn.view(batch, tokens, width),
            (din_folded * in_proj).sum(0),
            din_folded * norm,
            dtaps.sum(0).t(),
            dconv_bias.sum(0),
            draw.sum(0),
            dA * A,
            dD.sum(0),
            (dout_folded * out_proj).sum(0),
            dout_folded * gate_norm,
            None,
            None,
        )
