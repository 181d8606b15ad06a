"""The selective scan with everything but the recurrence itself done for all tokens at once, backward by hand.

A token then costs one fused multiply-add over the state, forwards and backwards. README.md has the mathematics.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def selective_scan_unrolled(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan`. Computes in float32 at least. Differentiable once."""
    work = torch.promote_types(x.dtype, torch.float32)
    wide = (value.to(work) for value in (x, dt, A, B, C, D))
    state = None if initial_state is None else initial_state.to(work)
    y, final = _Unrolled.apply(*wide, state)  # type: ignore[no-untyped-call]
    return y.to(x.dtype), final


class _Unrolled(torch.autograd.Function):
    """Tokens first: what one token touches lies together. x, dt (tokens, batch, channels), B, C (tokens, batch, N)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, initial_state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        x, dt, B, C = (value.transpose(0, 1).contiguous() for value in (x, dt, B, C))
        decay = torch.mul(dt[..., None], A).exp_()
        states = torch.mul((dt * x)[..., None], B[:, :, None])
        if initial_state is not None:
            states[0].addcmul_(decay[0], initial_state)
        for before, keep, state in zip(states[:-1].unbind(0), decay[1:].unbind(0), states[1:].unbind(0), strict=True):
            state.addcmul_(keep, before)
        y = torch.matmul(states, C[..., None])[..., 0].addcmul_(x, D)
        ctx.save_for_backward(x, dt, A, B, C, D, initial_state, decay, states)
        ctx.set_materialize_grads(False)
        return y.transpose(0, 1), states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
        x, dt, A, B, C, D, initial_state, decay, states = ctx.saved_tensors
        dy = torch.zeros_like(x) if dy is None else dy.transpose(0, 1).contiguous()
        dC = torch.matmul(dy[:, :, None], states)[:, :, 0]
        dstates = torch.mul(dy[..., None], C[:, :, None])  # then, from the end, what later tokens make of each state
        if dfinal is not None:
            dstates[-1].add_(dfinal)
        later = zip(dstates[1:].unbind(0), decay[1:].unbind(0), dstates[:-1].unbind(0), strict=True)
        for after, keep, dstate in reversed(list(later)):
            dstate.addcmul_(keep, after)
        dinput = torch.matmul(dstates, B[..., None])[..., 0]  # gradient of dt x
        dB = torch.matmul((dt * x)[:, :, None], dstates)[:, :, 0]
        dinitial = None if initial_state is None else dstates[0] * decay[0]
        # gradient of dt A: the state before the token, decayed, times what the token's state is worth
        dlog = dstates.mul_(decay)
        dlog[1:].mul_(states[:-1])
        dlog[0].mul_(0.0 if initial_state is None else initial_state)
        dA = torch.einsum("tbcn,tbc->cn", dlog, dt)
        ddt = torch.einsum("tbcn,cn->tbc", dlog, A).addcmul_(dinput, x)
        dx = dinput.mul_(dt).addcmul_(dy, D)
        dD = (dy * x).sum((0, 1))
        return dx.transpose(0, 1), ddt.transpose(0, 1), dA, dB.transpose(0, 1), dC.transpose(0, 1), dD, dinitial
