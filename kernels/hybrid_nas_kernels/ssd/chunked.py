"""State-space duality in chunks: matrix products inside a chunk, a short recurrence between chunks.

[arXiv:2405.21060, section 6], with the backward pass written by hand; README.md has the mathematics of both. The aim
is few passes over memory, with all the arithmetic in batched matrix products.

Names: n chunks of all sequences, Q tokens a chunk, H heads, P head_dim, N d_state. Decays live as logarithms to the
base 2, because on a CPU torch's exp2 is several times as fast as its exp, and as fast at -inf.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = 32
LOG2_E = math.log2(math.e)


def ssd_chunked(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `ssd`. Computes in float32 at least. Differentiable once."""
    batch, tokens, heads, head_dim = x.shape
    groups, d_state = B.shape[2:]
    share = heads // groups
    dtype, work = x.dtype, torch.promote_types(x.dtype, torch.float32)
    size = min(chunk or CHUNK, tokens)
    pad = -tokens % size

    def fold(value: Tensor) -> Tensor:
        """(batch, tokens, groups * rest, ...) -> (batch * groups, tokens padded to chunks, rest, ...).

        A padded token has dt = 0: it neither decays the state nor adds to it.
        """
        value = value.to(work)
        if groups > 1:
            value = value.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)  # type: ignore[no-untyped-call]
        return F.pad(value, [0, 0] * (value.ndim - 2) + [0, pad]) if pad else value

    def per_head(value: Tensor) -> Tensor:
        value = value.to(work).view(groups, share)
        return value if groups == 1 else value.repeat(batch, 1)

    state = None if initial_state is None else initial_state.to(work).reshape(-1, share, head_dim, d_state)
    dt = fold(dt)
    y, state = _Chunked.apply(  # type: ignore[no-untyped-call]
        fold(x),
        dt,
        dt * per_head(A)[:, None],
        fold(B).squeeze(2),
        fold(C).squeeze(2),
        None if D is None else per_head(D),
        state,
        size,
    )
    y = y[:, :tokens] if pad else y
    if groups > 1:
        y = y.unflatten(0, (batch, groups)).transpose(1, 2).flatten(2, 3)
    return y.to(dtype), state.view(batch, heads, head_dim, d_state)


class _Chunked(torch.autograd.Function):
    """One group. x (batch, tokens, H, P), dt and a = dt A (batch, tokens, H), B and C (batch, tokens, N),
    D (1 or batch, H) or None, initial state (batch, H, P, N) or None; tokens are a multiple of Q."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        a: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        initial_state: Tensor | None,
        Q: int,
    ) -> tuple[Tensor, Tensor]:
        batch, tokens, H, P = x.shape
        N, chunks = B.shape[-1], tokens // Q
        n = batch * chunks
        X, Bn, Cn = x.reshape(n, Q, H, P), B.reshape(n, Q, N), C.reshape(n, Q, N)
        step = dt.reshape(n, Q, H)
        # log2 of the decay since the chunk's start. A segment's decay is a difference of two of them, which in float32
        # would lose what a small segment needs after a large decay: it is taken of two float32 parts of a float64.
        log = torch.cumsum(a.reshape(n, Q, H).transpose(1, 2).double() * LOG2_E, dim=-1)
        high = log.to(x.dtype)
        low = (log - high).to(x.dtype)
        L = (high[..., :, None] - high[..., None, :]).add_(low[..., :, None]).sub_(low[..., None, :])
        # The mask goes in before exp2: above the diagonal the difference is positive and could overflow.
        L.add_(_mask(Q, x.device, x.dtype)).exp2_()
        from_start, to_end = high.exp2().transpose(1, 2), L[:, :, -1].transpose(1, 2)
        G = torch.bmm(Cn, Bn.transpose(1, 2))
        M, Xd, Xe = _weighted(X, step, to_end, L, G)
        inside = torch.bmm(M, Xd).view(n, H, Q, P)
        inner = torch.bmm(Xe.view(n, Q, H * P).transpose(1, 2), Bn).view(batch, chunks, H, P * N)
        decay = from_start[:, -1].reshape(batch, chunks, H, 1)
        entering = torch.empty_like(inner)
        state = _first_state(entering[:, 0], initial_state)
        slots = (*entering.unbind(1)[1:], torch.empty_like(state))
        for into, add, keep in zip(slots, inner.unbind(1), decay.unbind(1), strict=True):
            state = torch.addcmul(add, state, keep, out=into)

        across = torch.bmm(Cn, entering.view(n, H * P, N).transpose(1, 2)).view(n, Q, H, P)
        y = torch.empty_like(across)
        torch.addcmul(inside.transpose(1, 2), across, from_start[..., None], out=y)
        if D is not None:
            y.view(batch, tokens, H, P).addcmul_(x, D[:, None, :, None])
        ctx.save_for_backward(X, step, Bn, Cn, D, L, G, across, entering, from_start, to_end, decay)
        ctx.batch = batch
        ctx.has_initial_state = initial_state is not None
        ctx.set_materialize_grads(False)
        return y.view(batch, tokens, H, P), state.view(batch, H, P, N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor | None, dstate: Tensor | None) -> tuple[Tensor | None, ...]:
        X, step, Bn, Cn, D, L, G, across, entering, from_start, to_end, decay = ctx.saved_tensors
        n, Q, H, P = X.shape
        batch, N = ctx.batch, Bn.shape[-1]
        chunks, tokens = n // batch, n // batch * Q
        M, Xd, Xe = _weighted(
            X, step, to_end, L, G
        )  # cheaper to compute again than to keep: kept, they leave the cache
        dY = X.new_zeros(n, Q, H, P) if dy is None else dy.reshape(n, Q, H, P)

        dYe = torch.mul(dY, from_start[..., None], out=X.new_empty(n, Q, H, P)).view(n, Q, H * P)
        dC = torch.bmm(dYe, entering.view(n, H * P, N))
        through = torch.bmm(dYe.transpose(1, 2), Cn).view(batch, chunks, H, P * N)
        leaving = torch.empty_like(through)  # gradient of the state after each chunk
        back = _first_state(leaving[:, -1], dstate)
        slots = (torch.empty_like(back), *leaving.unbind(1)[:-1])
        for into, add, keep in zip(reversed(slots), *(reversed(v.unbind(1)) for v in (through, decay)), strict=True):
            back = torch.addcmul(add, back, keep, out=into)
        # The gradient of the log decay at token k sums over all that it decays, not by a difference of large sums:
        # what passes the chunk, what enters it and is read at i >= k, what is written at j < k and leaves it, and
        # what is written at j < k <= i and read at i.
        passing = (leaving * entering).sum(-1, keepdim=True).mul_(decay)
        product = across * dYe.view(n, Q, H, P)
        read = product.sum(-1)

        leaving = leaving.view(n, H * P, N)
        dXd = torch.bmm(Bn, leaving.transpose(1, 2)).view(n, Q, H, P)
        dB = torch.bmm(Xe.view(n, Q, H * P), leaving)
        written = torch.mul(dXd, Xe, out=product).sum(-1)

        dYh = X.new_empty(n, H, Q, P).copy_(dY.transpose(1, 2)).view(n * H, Q, P)
        direct = torch.bmm(M.transpose(1, 2), dYh).view(n, H, Q, P).transpose(1, 2)
        torch.addcmul(direct, dXd, to_end[..., None], out=dXd)
        dM = torch.bmm(dYh, Xd.transpose(1, 2)).view(n, H, Q, Q).mul_(L)
        dG = dM.sum(1) if H > 1 else dM[:, 0]
        dC.baddbmm_(dG, Bn)
        dB.baddbmm_(dG.transpose(1, 2), Cn)

        dsegment = dM.mul_(G[:, None]).view(n * H * Q, Q)
        crossing = torch.mm(dsegment, _before(Q, X.device, X.dtype)).view(n, H, Q, Q).tril_().sum(-2)
        dstep = torch.mul(dXd, X, out=product).sum(-1)
        dX, dD = dXd.mul_(step[..., None]), None
        if D is not None:
            skip = torch.mul(dY, X, out=product).sum(-1).view(batch, tokens, H)
            dD = skip.sum((0, 1)).view(1, H) if len(D) == 1 else skip.sum(1)
            dX.view(batch, tokens, H, P).addcmul_(dY.view(batch, tokens, H, P), D[:, None, :, None])
        da = read.flip(1).cumsum(1).flip(1) + passing.view(n, 1, H)
        da += crossing.transpose(1, 2)
        da[:, 1:] += written[:, :-1].cumsum(1)
        return (
            dX.view(batch, tokens, H, P),
            dstep.view(batch, tokens, H),
            da.view(batch, tokens, H),
            dB.view(batch, tokens, N),
            dC.view(batch, tokens, N),
            dD,
            back.view(batch, H, P, N) if ctx.has_initial_state else None,
            None,
        )


def _weighted(X: Tensor, step: Tensor, to_end: Tensor, L: Tensor, G: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The weights inside a chunk (n H, Q, Q), dt x by head (n H, Q, P), and dt x decayed to the chunk's end
    (n, Q, H, P)."""
    n, Q, H, P = X.shape
    M = torch.mul(L, G[:, None])
    Xd = X.new_empty(n, H, Q, P)
    torch.mul(X.transpose(1, 2), step.transpose(1, 2)[..., None], out=Xd)
    Xe = X.new_empty(n, Q, H, P)
    torch.mul(X, (step * to_end)[..., None], out=Xe)
    return M.view(n * H, Q, Q), Xd.view(n * H, Q, P), Xe


def _first_state(slot: Tensor, given: Tensor | None) -> Tensor:
    """Write the state that a scan begins with, zero if None, into `slot`; returns the slot."""
    return slot.zero_() if given is None else slot.copy_(given.reshape(slot.shape))


@lru_cache(maxsize=16)
def _mask(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """-inf where the column is later than the row, 0 elsewhere."""
    with torch.inference_mode(False):  # usable in every mode
        return torch.full((size, size), -torch.inf, device=device, dtype=dtype).triu_(1)


@lru_cache(maxsize=16)
def _before(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """1 where the row is before the column, 0 elsewhere: a product with it sums over all that lies before."""
    with torch.inference_mode(False):  # usable in every mode
        return torch.ones((size, size), device=device, dtype=dtype).triu_(1)
