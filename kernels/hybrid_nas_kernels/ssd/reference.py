"""State-space duality by its recurrence, one token at a time: its meaning [arXiv:2405.21060, eq. 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def ssd_reference(
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
    """The recurrence of README.md in the dtype of `x`. `chunk` is part of the shared signature and has no meaning here.

    Shapes as in `ssd`.
    """
    del chunk
    batch, tokens, heads, head_dim = x.shape
    share = heads // B.shape[2]
    B, C = B.repeat_interleave(share, dim=2), C.repeat_interleave(share, dim=2)
    state = x.new_zeros(batch, heads, head_dim, B.shape[-1]) if initial_state is None else initial_state
    outputs = []
    for t in range(tokens):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        state = decay * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, :, None, :]
        y = (state * C[:, t, :, None, :]).sum(-1)
        outputs.append(y if D is None else y + D[:, None] * x[:, t])
    return torch.stack(outputs, dim=1), state


def ssd_step_reference(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor, bias: Tensor | None = None
) -> Tensor:
    """One token of the recurrence; `state` (batch, heads, head_dim, d_state) is updated in place.

    With `bias` (heads,) the time step is softplus(dt + bias) and A is the logarithm of its negative, as weights are.

    x (batch, heads, head_dim), dt (batch, heads), B and C (batch, groups, d_state); returns y like x. Computes in
    float32 at least; the state keeps its own dtype.
    """
    work = torch.promote_types(torch.promote_types(x.dtype, state.dtype), torch.float32)
    share = x.shape[1] // B.shape[1]
    B, C = B.repeat_interleave(share, dim=1).to(work), C.repeat_interleave(share, dim=1).to(work)
    dt, wide = dt.to(work), x.to(work)
    if bias is not None:
        dt, A = F.softplus(dt + bias.to(work)), -torch.exp(A.to(work))
    decay = torch.exp(dt * A.to(work))[..., None, None]
    new = decay * state.to(work) + (dt[..., None] * wide)[..., None] * B[:, :, None, :]
    state.copy_(new)
    y = (new * C[:, :, None, :]).sum(-1)
    return (y if D is None else y + D.to(work)[:, None] * wide).to(x.dtype)
