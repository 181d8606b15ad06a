"""The scan of Mamba-3 in chunks: one decaying sum of earlier tokens, and the token itself apart.

README.md has the mathematics. Differentiable by torch alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hybrid_nas_kernels.chunks import decays, fold, unfold
from hybrid_nas_kernels.mamba3.reference import turn, turned

CHUNK = 32


def mamba3_chunked(
    x: Tensor,
    dt: Tensor,
    log_decay: Tensor,
    trap: Tensor,
    B: Tensor,
    C: Tensor,
    B_bias: Tensor,
    C_bias: Tensor,
    angle: Tensor,
    D: Tensor,
) -> Tensor:
    """As `mamba3`. Computes in float32 at least."""
    batch, tokens, heads, head_dim = x.shape
    d_state, dtype = B.shape[-1], x.dtype
    work = torch.promote_types(dtype, torch.float32)
    size = min(CHUNK, tokens)
    share = heads // B.shape[2]
    x, dt, log_decay, now = (value.to(work) for value in (x, dt, log_decay, torch.sigmoid(trap.to(work))))
    keys, queries = (
        value.to(work).repeat_interleave(share, dim=2) + bias.to(work) for value, bias in ((B, B_bias), (C, C_bias))
    )
    itself = (keys * queries).sum(-1) * now * dt + D.to(work)  # a phase that both share turns no product
    # Sums of angles in float64: the phase of a late token is a sum over the whole sequence.
    phase = torch.cumsum(turn(angle.to(work)[:, :, None], dt).double(), dim=1).remainder(2 * math.pi).to(work)
    keys, queries = turned(keys, phase), turned(queries, phase)

    # What a token adds for those after it: its own share, and the share that the next token takes of it.
    weight = torch.exp(log_decay) * ((1 - now) * dt + _before(now * dt))
    added = fold(_before(x) * weight[..., None], size, work)
    keys, queries = fold(_before(keys), size, work), fold(queries, size, work)
    between, from_start, to_end = decays(fold(log_decay[..., None], size, work)[..., 0], work)

    inside = (queries @ keys.transpose(-1, -2) * between) @ added
    leaving = (added * to_end).transpose(-1, -2) @ keys
    queries = queries * from_start
    kept = from_start[..., -1:, :]
    state = x.new_zeros(batch * heads, head_dim, d_state)
    outputs = []
    for c in range(len(queries)):
        outputs.append(torch.baddbmm(inside[c], queries[c], state.transpose(-1, -2)))
        state = kept[c] * state + leaving[c]
    return (unfold(outputs, batch, tokens) + itself[..., None] * x).to(dtype)


def _before(value: Tensor) -> Tensor:
    """The value of the token before, zero at the first. (batch, tokens, ...)"""
    return torch.cat((torch.zeros_like(value[:, :1]), value[:, :-1]), dim=1)
