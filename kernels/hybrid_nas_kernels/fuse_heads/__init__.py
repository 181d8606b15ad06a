"""The end of a parallel hybrid: gate, norms, scales, fusion, projection. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick, triton_or
from hybrid_nas_kernels.fuse_heads.reference import fuse_halves, fuse_heads_reference

__all__ = ["IMPLEMENTATIONS", "choose", "fuse_halves", "fuse_heads", "fuse_heads_reference"]

IMPLEMENTATIONS = {
    "reference": fuse_heads_reference,
    "triton": deferred("hybrid_nas_kernels.fuse_heads.triton_kernels", "fuse_heads_triton", needs="triton"),
}
FUSIONS = ("add", "difference", "concat")


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    return triton_or(device, lambda: ("reference", f"there is no other on {device.type}"), dtype)


def fuse_heads(
    y: Tensor,
    z: Tensor,
    attended: Tensor,
    *,
    norms: tuple[Tensor, Tensor] | None,
    scales: tuple[Tensor | None, Tensor | None] = (None, None),
    fusion: str,
    weights: tuple[Tensor, ...],
    groups: int = 1,
    eps: float,
    implementation: str = "auto",
) -> Tensor:
    """The two halves of a parallel hybrid as one output (..., width).

    y and z (..., d_ssm) are Mamba-2's heads and gate, `attended` (..., values) the attention's heads. `norms` are the
    gains (d_ssm,) and (values,) of an RMSNorm over each half, Mamba-2's in `groups` equal parts; None: no norm.
    `scales` multiply the halves after it: (channels,), (1,), a value a token (..., 1), or None for 1. `fusion` is add,
    difference (Mamba less attention) or concat (Mamba first). `weights`: one (width, fused channels), behind the
    fusion, or two, (width, d_ssm) and (width, values), before it.
    """
    if fusion not in FUSIONS or len(weights) not in (1, 2) or (fusion == "concat" and len(weights) == 2):
        raise ValueError(
            f"fuse_heads: fusion is one of {', '.join(FUSIONS)} with 1 or 2 weights (concat: 1), found {fusion!r} with "
            f"{len(weights)}"
        )
    run = pick("fuse_heads", implementation, IMPLEMENTATIONS, lambda: choose(y.device, y.dtype))
    return run(y, z, attended, norms, scales, fusion, weights, groups, eps)
