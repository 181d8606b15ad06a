"""State-space duality (SSD), the scan of Mamba-2 [arXiv:2405.21060]. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.dispatch import deferred, pick, runs_triton, triton_or
from hybrid_nas_kernels.ssd.chunked import ssd_chunked
from hybrid_nas_kernels.ssd.reference import ssd_reference, ssd_step_reference

__all__ = ["IMPLEMENTATIONS", "choose", "ssd", "ssd_chunked", "ssd_reference", "ssd_step", "ssd_step_reference"]

IMPLEMENTATIONS = {
    "reference": ssd_reference,
    "chunked": ssd_chunked,
    "mamba_ssm": deferred("hybrid_nas_kernels.ssd.mamba_ssm", "ssd_mamba_ssm", needs="mamba_ssm"),
    "triton": deferred("hybrid_nas_kernels.ssd.triton_kernels", "ssd_triton", needs="triton"),
}


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    return triton_or(device, lambda: ("chunked", "torch alone, matrix products in chunks"), dtype)


def ssd(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    chunk: int | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """y and the final state of the selective state-space recurrence.

        state_t = exp(dt_t A) state_{t-1} + dt_t x_t B_t^T,    y_t = state_t C_t + D x_t

    x (batch, tokens, heads, head_dim); dt (batch, tokens, heads), positive, already through softplus; A (heads,),
    negative; B and C (batch, tokens, groups, d_state), head h reads group h // (heads // groups); D (heads,);
    `initial_state` (batch, heads, head_dim, d_state), zero if None. Any number of tokens from 1. `chunk` is a hint
    to implementations that cut the sequence; the result does not depend on it beyond rounding.
    Returns y like x, and the state after the last token, in float32 at least.
    """
    if x.shape[1] < 1:
        raise ValueError("ssd: a sequence needs at least 1 token, found 0")
    if x.shape[2] % B.shape[2]:
        raise ValueError(f"ssd: heads must be a multiple of groups, found {x.shape[2]} and {B.shape[2]}")
    run = pick("ssd", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.dtype))
    return run(x, dt, A, B, C, D, initial_state=initial_state, chunk=chunk)


def ssd_step(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor, bias: Tensor | None = None
) -> Tensor:
    """One token of the recurrence; `state` (batch, heads, head_dim, d_state) is updated in place. With `bias` (heads,)
    the time step is softplus(dt + bias) and A is the logarithm of its negative, as weights are.

    x (batch, heads, head_dim), dt (batch, heads), B and C (batch, groups, d_state); returns y like x. Computes in
    float32 at least; the state keeps its own dtype. Triton on a CUDA device, the reference elsewhere."""
    return (ssd_step_triton if runs_triton(x) else ssd_step_reference)(x, dt, A, B, C, D, state, bias)


ssd_step_triton = deferred("hybrid_nas_kernels.ssd.triton_step", "ssd_step_triton", needs="triton")


def time_step(dt: Tensor, bias: Tensor) -> Tensor:
    """softplus(dt + bias): dt (..., heads), bias (heads,). In float32 by Triton on a CUDA device, else torch's own."""
    return _time_step_triton(dt, bias) if runs_triton(dt) else F.softplus(dt + bias)


_time_step_triton = deferred("hybrid_nas_kernels.ssd.triton_time_step", "time_step_triton", needs="triton")
