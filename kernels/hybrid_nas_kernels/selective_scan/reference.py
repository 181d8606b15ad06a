"""The selective scan: the recurrence, token by token, and its decoding step."""

from __future__ import annotations

import torch
from torch import Tensor


def selective_scan_reference(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Shapes as in `selective_scan`. Computes in the dtype of the inputs."""
    batch, tokens, channels = x.shape
    state = x.new_zeros(batch, channels, A.shape[1]) if initial_state is None else initial_state
    outputs = []
    for t in range(tokens):
        decay = torch.exp(dt[:, t, :, None] * A)
        state = decay * state + (dt[:, t] * x[:, t])[..., None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1) + D * x[:, t])
    return torch.stack(outputs, dim=1), state


def selective_scan_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Tensor:
    """One token: x and dt (batch, channels), B and C (batch, d_state); `state` (batch, channels, d_state) is updated in
    place. Computes in float32 at least."""
    work = torch.promote_types(torch.promote_types(x.dtype, state.dtype), torch.float32)
    wide = [value.to(work) for value in (x, dt, A, B, C, D)]
    x_, dt_, B_, C_ = (wide[i][:, None] for i in (0, 1, 3, 4))
    y, new = selective_scan_reference(x_, dt_, wide[2], B_, C_, wide[5], initial_state=state.to(work))
    state.copy_(new)
    return y[:, 0].to(x.dtype)
