"""The scan of Mamba-3: the recurrence, token by token, and its decoding step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def turned(x: Tensor, phase: Tensor) -> Tensor:
    """x (..., d_state) with its pairs (0, 1), (2, 3), ... turned by phase (..., pairs); what is left stays as it is."""
    pairs = phase.shape[-1]
    first, second = x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2]
    cos, sin = torch.cos(phase), torch.sin(phase)
    pair = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)
    return torch.cat((pair, x[..., 2 * pairs :]), dim=-1)


def turn(angle: Tensor, dt: Tensor) -> Tensor:
    """By how much a token turns the phase: a rate of at most half a turn, times its time step."""
    return math.pi * torch.tanh(angle) * dt[..., None]


def mamba3_reference(
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
    """Shapes as in `mamba3`. Computes in the dtype of the inputs."""
    batch, tokens, heads, head_dim = x.shape
    phase = x.new_zeros(batch, heads, angle.shape[-1])
    state = x.new_zeros(batch, heads, head_dim, B.shape[-1])
    key, value = x.new_zeros(batch, heads, B.shape[-1]), x.new_zeros(batch, heads, head_dim)
    outputs = []
    for t in range(tokens):
        token = x[:, t], dt[:, t], log_decay[:, t], trap[:, t], B[:, t], C[:, t]
        y, phase, state, key, value = _token(*token, B_bias, C_bias, angle[:, t], D, phase, state, key, value)
        outputs.append(y)
    return torch.stack(outputs, dim=1)


def mamba3_step(
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
    phase: Tensor,
    state: Tensor,
    key: Tensor,
    value: Tensor,
) -> Tensor:
    """One token, without the dimension of tokens. `phase` (batch, heads, pairs), `state` (batch, heads, head_dim,
    d_state), and the last token's turned `key` (batch, heads, d_state) and `value` (batch, heads, head_dim) are updated
    in place. Computes in float32 at least."""
    work = torch.promote_types(torch.promote_types(x.dtype, state.dtype), torch.float32)
    kept = (phase, state, key, value)
    wide = (t.to(work) for t in (x, dt, log_decay, trap, B, C, B_bias, C_bias, angle, D, *kept))
    y, *after = _token(*wide)
    for old, new in zip(kept, after, strict=True):
        old.copy_(new)
    return y.to(x.dtype)


def _token(
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
    phase: Tensor,
    state: Tensor,
    key: Tensor,
    value: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y of one token, and the phase, state, key and value after it."""
    share = x.shape[1] // B.shape[1]
    phase = torch.remainder(phase + turn(angle[:, None], dt), 2 * math.pi)
    new_key = turned(B.repeat_interleave(share, dim=1) + B_bias, phase)
    query = turned(C.repeat_interleave(share, dim=1) + C_bias, phase)
    decay, now = torch.exp(log_decay)[..., None, None], torch.sigmoid(trap)
    state = (
        decay * state
        + decay * ((1 - now) * dt)[..., None, None] * value[..., None] * key[..., None, :]
        + (now * dt)[..., None, None] * x[..., None] * new_key[..., None, :]
    )
    y = (state * query[..., None, :]).sum(-1) + D[:, None] * x
    return y, phase, state, new_key, x
