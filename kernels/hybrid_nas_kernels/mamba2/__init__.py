"""The whole Mamba-2 mixer, from the norm before it to its output. README.md has the parts."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import pick
from hybrid_nas_kernels.mamba2.native import mamba2_native
from hybrid_nas_kernels.mamba2.separate import mamba2_reference, mamba2_separate
from hybrid_nas_kernels.mamba2.step import conv_scan_step, conv_scan_step_reference
from hybrid_nas_kernels.native import why_not

__all__ = [
    "IMPLEMENTATIONS",
    "choose",
    "conv_scan_step",
    "conv_scan_step_reference",
    "mamba2",
    "mamba2_native",
    "mamba2_reference",
    "mamba2_separate",
]

IMPLEMENTATIONS = {"reference": mamba2_reference, "separate": mamba2_separate, "native": mamba2_native}


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device` in `dtype`, and why."""
    reason = why_not(device, dtype)
    if reason is not None:
        return "separate", reason
    return "native", "one node, compiled for this CPU"


def mamba2(
    x: Tensor,
    norm: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    gate_norm: Tensor,
    out_proj: Tensor,
    *,
    groups: int,
    eps: float,
    implementation: str = "auto",
) -> Tensor:
    """out_proj of the gated norm of the scan of the convolution of in_proj of rms_norm(x) * norm [arXiv:2405.21060].

    x (batch, tokens, width); norm (width,); in_proj (rows of z, x, B, C, dt, width); conv_weight (channels of x, B, C,
    kernel) and conv_bias (channels,); dt_bias, A_log and D (heads,); gate_norm (d_ssm,); out_proj (width, d_ssm).
    Returns like x.
    """
    run = pick("mamba2", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.dtype))
    return run(x, norm, in_proj, conv_weight, conv_bias, dt_bias, A_log, D, gate_norm, out_proj, groups, eps)
