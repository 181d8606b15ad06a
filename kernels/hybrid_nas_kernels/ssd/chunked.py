"""State-space duality in chunks: matrix products inside a chunk, a short recurrence between chunks.

[arXiv:2405.21060, section 6]. README.md has the mathematics.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """As `ssd`, by plain differentiable torch operations. Computes in float32 at least."""
    batch, tokens, heads, head_dim = x.shape
    groups, d_state = B.shape[2:]
    share = heads // groups
    out_dtype, work = x.dtype, torch.promote_types(x.dtype, torch.float32)
    size = min(chunk or 64, tokens)
    chunks = -(-tokens // size)
    pad = chunks * size - tokens

    # A padded token has dt = 0: it neither decays the state nor adds to it.
    def cut(value: Tensor, *tail: int) -> Tensor:
        value = F.pad(value.to(work), [0, 0] * (value.ndim - 2) + [0, pad]) if pad else value.to(work)
        return value.reshape(batch, chunks, size, *tail)

    xs, dts = cut(x, groups, share, head_dim), cut(dt, groups, share)
    Bs, Cs = cut(B, groups, d_state), cut(C, groups, d_state)
    total = torch.cumsum(dts * A.to(work).view(groups, share), dim=2)  # log decay from the chunk's start, <= 0
    rows = total.permute(0, 1, 3, 4, 2)  # (batch, chunks, groups, share, size)
    hidden = torch.ones(size, size, dtype=torch.bool, device=x.device).triu(1)
    # The mask goes in before exp: above the diagonal the segment sum is positive and would overflow.
    decay = (rows[..., :, None] - rows[..., None, :]).masked_fill(hidden, -torch.inf).exp()
    weighted = xs * dts[..., None]
    scores = torch.einsum("bcign,bcjgn->bcgij", Cs, Bs)
    y = torch.einsum("bcgij,bcghij,bcjghp->bcighp", scores, decay, weighted)

    to_end = torch.exp(rows[..., -1:] - rows)
    inner = torch.einsum("bcjgn,bcghj,bcjghp->bcghpn", Bs, to_end, weighted)
    if initial_state is None:
        state = x.new_zeros(batch, groups, share, head_dim, d_state, dtype=work)
    else:
        state = initial_state.to(work).view(batch, groups, share, head_dim, d_state)
    entering = []
    for c in range(chunks):
        entering.append(state)
        state = torch.exp(rows[:, c, :, :, -1])[..., None, None] * state + inner[:, c]
    y = y + torch.einsum("bcign,bcghpn->bcighp", Cs, torch.stack(entering, 1)) * total.exp()[..., None]
    y = y.reshape(batch, chunks * size, heads, head_dim)[:, :tokens]
    if D is not None:
        y = y + D.to(work)[:, None] * x.to(work)
    return y.to(out_dtype), state.view(batch, heads, head_dim, d_state)
