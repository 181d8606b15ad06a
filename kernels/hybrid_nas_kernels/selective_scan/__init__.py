"""The selective scan, the heart of Mamba-1 [arXiv:2312.00752]. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick, why_not
from hybrid_nas_kernels.selective_scan.reference import selective_scan_reference, selective_scan_step
from hybrid_nas_kernels.selective_scan.unrolled import selective_scan_unrolled

__all__ = [
    "IMPLEMENTATIONS",
    "choose",
    "selective_scan",
    "selective_scan_reference",
    "selective_scan_step",
    "selective_scan_unrolled",
]

IMPLEMENTATIONS = {
    "reference": selective_scan_reference,
    "unrolled": selective_scan_unrolled,
    "mamba_ssm": deferred("hybrid_nas_kernels.selective_scan.mamba_ssm", "selective_scan_mamba_ssm", needs="mamba_ssm"),
}


def choose(device: torch.device, dtype: torch.dtype = torch.float32, from_zero: bool = True) -> tuple[str, str]:
    """The implementation that "auto" takes on `device` in `dtype`, from a zero state or another, and why."""
    if device.type != "cuda":
        return "unrolled", "torch alone, one operation a token"
    if dtype == torch.float64 or not from_zero:
        return "unrolled", "torch alone, one operation a token: mamba-ssm's has no float64 and begins at a zero state"
    missing = why_not("mamba_ssm")
    if missing is not None:
        return "unrolled", f"torch alone, one operation a token: {missing}"
    return "mamba_ssm", "mamba-ssm's compiled kernel, one launch each way and nothing to tune"


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    initial_state: Tensor | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """y and the final state of the selective scan: every channel has its own time step and decays.

        state_t = exp(dt_t A) state_{t-1} + dt_t x_t B_t,    y_t = state_t . C_t + D x_t      (a channel)

    x and dt (batch, tokens, channels), dt positive, already through softplus; A (channels, d_state), negative; B and C
    (batch, tokens, d_state), shared by all channels; D (channels,); `initial_state` (batch, channels, d_state), zero
    if None. Any number of tokens from 1. Returns y like x, and the state after the last token, in float32 at least.
    """
    if x.shape[1] < 1:
        raise ValueError("selective_scan: a sequence needs at least 1 token, found 0")
    run = pick(
        "selective_scan", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.dtype, initial_state is None)
    )
    return run(x, dt, A, B, C, D, initial_state=initial_state)
