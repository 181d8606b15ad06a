"""The scan of Mamba-3 [arXiv:2603.15569], one input and one output a head. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick
from hybrid_nas_kernels.mamba3.chunked import mamba3_chunked
from hybrid_nas_kernels.mamba3.reference import mamba3_reference, mamba3_step

__all__ = [
    "IMPLEMENTATIONS",
    "choose",
    "mamba3",
    "mamba3_chunked",
    "mamba3_reference",
    "mamba3_step",
]

IMPLEMENTATIONS = {
    "reference": mamba3_reference,
    "chunked": mamba3_chunked,
    "mamba_ssm": deferred("hybrid_nas_kernels.mamba3.mamba_ssm", "mamba3_mamba_ssm", needs="mamba_ssm"),
}


def choose(device: torch.device) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    if device.type != "cuda":
        return "chunked", "torch alone, matrix products in chunks"
    return "chunked", "torch alone; mamba-ssm's kernels (mamba_ssm) tune for minutes at each new shape"


def mamba3(
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
    *,
    implementation: str = "auto",
) -> Tensor:
    """y of the exponential-trapezoidal scan with turning keys, from a zero state.

        phase_t = phase_{t-1} + pi tanh(angle_t) dt_t,    K_t and Q_t = B_t + B_bias and C_t + C_bias, turned by it
        state_t = a_t state_{t-1} + a_t (1 - m_t) dt_t x_{t-1} K_{t-1}^T + m_t dt_t x_t K_t^T
        y_t     = state_t Q_t + D x_t,                      a_t = exp(log_decay_t), m_t = sigmoid(trap_t)

    x (batch, tokens, heads, head_dim); dt, positive, log_decay, not above 0, and trap (batch, tokens, heads); B and C
    (batch, tokens, groups, d_state), head h reads group h // (heads // groups); B_bias and C_bias (heads, d_state);
    angle (batch, tokens, pairs), at most d_state / 2 of them; D (heads,). Any number of tokens from 1. Returns like x.
    """
    if x.shape[1] < 1:
        raise ValueError("mamba3: a sequence needs at least 1 token, found 0")
    if x.shape[2] % B.shape[2]:
        raise ValueError(f"mamba3: heads must be a multiple of groups, found {x.shape[2]} and {B.shape[2]}")
    run = pick("mamba3", implementation, IMPLEMENTATIONS, lambda: choose(x.device))
    return run(x, dt, log_decay, trap, B, C, B_bias, C_bias, angle, D)
