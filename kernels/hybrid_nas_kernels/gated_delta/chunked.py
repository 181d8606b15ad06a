"""The gated delta rule in chunks: what a chunk writes is one triangular system, the rest matrix products.

[arXiv:2412.06464, section 3.3], after the WY form of [arXiv:2406.06484]; README.md has the mathematics. Differentiable
by torch alone: every step is one that autograd knows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.chunks import decays, fold, unfold

CHUNK = 32


def gated_delta_chunked(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `gated_delta`. Computes in float32 at least."""
    batch, tokens, heads, key_dim = k.shape
    value_dim, dtype = v.shape[-1], v.dtype
    work = torch.promote_types(dtype, torch.float32)
    size = min(CHUNK, tokens)
    # A padded token has beta 0, so it writes nothing.
    q, k, v, beta, log = (fold(value, size, work) for value in (q, k, v, beta[..., None], log_decay[..., None]))
    between, from_start, to_end = decays(log[..., 0], work)

    weighed = beta * k
    system = (weighed @ k.transpose(-1, -2) * between).tril(-1)
    right = torch.cat((beta * v, weighed * from_start), dim=-1)
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    values, keys = torch.split(solved, [value_dim, key_dim], dim=-1)
    inside = q @ k.transpose(-1, -2) * between
    leaving = (k * to_end).transpose(-1, -2)
    kept = from_start[..., -1:, :]

    if initial_state is None:
        state = k.new_zeros(batch * heads, key_dim, value_dim)
    else:
        state = initial_state.to(work).reshape(batch * heads, key_dim, value_dim)
    q = q * from_start
    outputs = []
    for c in range(len(q)):
        written = torch.baddbmm(values[c], keys[c], state, alpha=-1)
        outputs.append(torch.baddbmm(q[c] @ state, inside[c], written))
        state = torch.baddbmm(kept[c] * state, leaving[c], written)
    return unfold(outputs, batch, tokens).to(dtype), state.view(batch, heads, key_dim, value_dim)
