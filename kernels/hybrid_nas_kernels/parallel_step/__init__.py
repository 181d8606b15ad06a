"""A decoding step of a parallel hybrid, from the projected token to the output. README.md has the parts."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick, triton_or
from hybrid_nas_kernels.parallel_step.reference import Mamba, parallel_step_reference

__all__ = ["IMPLEMENTATIONS", "Mamba", "choose", "parallel_step", "parallel_step_reference"]

IMPLEMENTATIONS = {
    "reference": parallel_step_reference,
    "triton": deferred("hybrid_nas_kernels.parallel_step.triton_step", "parallel_step_triton", needs="triton"),
}


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    return triton_or(device, lambda: ("reference", f"there is no other on {device.type}"), dtype)


def parallel_step(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    mamba: Mamba,
    z: Tensor,
    *,
    norms: tuple[Tensor, Tensor],
    fusion: str,
    weights: tuple[Tensor, Tensor],
    eps: float,
    implementation: str = "auto",
) -> Tensor:
    """The layer's output (batch, width) for one token; the convolution's inputs and the state are updated in place.

    q, keys and values as in `attention_step`; `mamba` is what `conv_scan_step` is given, in its order; z (batch, d_ssm)
    the gate. `norms` are the gains (d_ssm,) and (heads * value_dim,) of an RMSNorm over each half, `fusion` is add or
    difference (Mamba less attention), `weights` (width, d_ssm) and (width, heads * value_dim). No gradients.
    """
    if fusion not in ("add", "difference"):
        raise ValueError(f"parallel_step: fusion is add or difference, found {fusion!r}; fuse_heads has concat")
    run = pick("parallel_step", implementation, IMPLEMENTATIONS, lambda: choose(q.device, q.dtype))
    return run(q, keys, values, mamba, z, norms, fusion, weights, eps)
