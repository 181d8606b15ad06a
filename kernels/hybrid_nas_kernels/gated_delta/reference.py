"""The gated delta rule: the recurrence, token by token, and its decoding step."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_delta_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `gated_delta`. Computes in the dtype of the inputs."""
    batch, tokens, heads, key_dim = k.shape
    state = v.new_zeros(batch, heads, key_dim, v.shape[-1]) if initial_state is None else initial_state
    outputs = []
    for t in range(tokens):
        state = torch.exp(log_decay[:, t])[..., None, None] * state
        found = (state * k[:, t, :, :, None]).sum(-2)
        written = beta[:, t, :, None] * (v[:, t] - found)
        state = state + k[:, t, :, :, None] * written[..., None, :]
        outputs.append((state * q[:, t, :, :, None]).sum(-2))
    return torch.stack(outputs, dim=1), state


def gated_delta_step(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor) -> Tensor:
    """One token: q and k (batch, heads, key_dim), v (batch, heads, value_dim), log_decay and beta (batch, heads);
    `state` (batch, heads, key_dim, value_dim) is updated in place. Computes in float32 at least."""
    work = torch.promote_types(torch.promote_types(v.dtype, state.dtype), torch.float32)
    wide = (value.to(work)[:, None] for value in (q, k, v, log_decay, beta))
    y, new = gated_delta_reference(*wide, initial_state=state.to(work))
    state.copy_(new)
    return y[:, 0].to(v.dtype)
