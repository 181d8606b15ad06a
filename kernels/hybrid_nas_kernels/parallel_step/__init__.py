"""A decoding step of a parallel hybrid, from the projected token to the output. README.md has the parts."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick, triton_or
from hybrid_nas_kernels.linear_step import whole
from hybrid_nas_kernels.parallel_step.reference import Mamba, parallel_step_reference
from hybrid_nas_kernels.rope import Cached

__all__ = ["IMPLEMENTATIONS", "Cached", "Mamba", "choose", "parallel_step", "parallel_step_reference"]

IMPLEMENTATIONS = {
    "reference": parallel_step_reference,
    "triton": deferred("hybrid_nas_kernels.parallel_step.triton_step", "parallel_step_triton", needs="triton"),
}


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    return triton_or(device, lambda: ("reference", f"there is no other on {device.type}"), dtype)


def parallel_step(
    cached: Cached,
    mamba: Mamba,
    z: Tensor,
    *,
    norms: tuple[Tensor, Tensor],
    fusion: str,
    weights: tuple[Tensor, Tensor],
    eps: float,
    implementation: str = "auto",
    parts: bool = False,
) -> Tensor:
    """The layer's output (batch, width) for one token; keys, values, the convolution's inputs and the state are updated
    in place.

    `cached` is what `rope_and_cache` is given, in its order, all of its slots attended to; `mamba` is what
    `conv_scan_step` is given; z (batch, d_ssm) the gate. `norms` are the gains (d_ssm,) and (heads * value_dim,) of an
    RMSNorm over each half, `fusion` is add or difference (Mamba less attention), `weights` (width, d_ssm) and (width,
    heads * value_dim). No gradients. With `parts` the output is possibly parts of it that are still to be added, as of
    `linear_step_parts`.
    """
    if fusion not in ("add", "difference"):
        raise ValueError(f"parallel_step: fusion is add or difference, found {fusion!r}; fuse_heads has concat")
    run = pick("parallel_step", implementation, IMPLEMENTATIONS, lambda: choose(z.device, z.dtype))
    out = run(cached, mamba, z, norms, fusion, weights, eps)
    return out if parts else whole(out, z)
