"""The end of a Mamba-2 mixer: gate, RMSNorm in groups, linear map. README.md has the mathematics."""

from __future__ import annotations

from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick
from hybrid_nas_kernels.gated_norm_linear.folded import gated_norm_linear_folded
from hybrid_nas_kernels.gated_norm_linear.reference import gated_norm_linear_reference
from hybrid_nas_kernels.linear_step import whole
from hybrid_nas_kernels.norm_linear import choose

__all__ = [
    "IMPLEMENTATIONS",
    "choose",
    "gated_norm_linear",
    "gated_norm_linear_folded",
    "gated_norm_linear_reference",
]

IMPLEMENTATIONS = {
    "reference": gated_norm_linear_reference,
    "folded": gated_norm_linear_folded,
    "triton": deferred(
        "hybrid_nas_kernels.gated_norm_linear.triton_kernels", "gated_norm_linear_triton", needs="triton"
    ),
}


def gated_norm_linear(
    y: Tensor,
    z: Tensor,
    norm: Tensor,
    weight: Tensor,
    *,
    groups: int,
    eps: float,
    implementation: str = "auto",
    parts: bool = False,
) -> Tensor:
    """rms_norm(y * silu(z)) over each of `groups` equal parts of the channels, times `norm`, times weight^T.

    y and z (..., channels); norm (channels,); weight (width, channels). Returns (..., width); with
    `parts`, in decoding, possibly parts of it that are still to be added, as of `linear_step_parts`.
    """
    run = pick(
        "gated_norm_linear", implementation, IMPLEMENTATIONS, lambda: choose(y.device, y.numel() // len(norm), y.dtype)
    )
    out = run(y, z, norm, weight, groups, eps)
    return out if parts else whole(out, y)
