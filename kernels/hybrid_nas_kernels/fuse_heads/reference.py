"""Gate, norms, scales, fusion, projection: the meaning."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fuse_heads_reference(
    y: Tensor,
    z: Tensor,
    attended: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    scales: tuple[Tensor | None, Tensor | None],
    fusion: str,
    weights: tuple[Tensor, ...],
    groups: int,
    eps: float,
) -> Tensor:
    """Shapes as in `fuse_heads`."""
    mamba = y * F.silu(z)
    if norms is not None:
        parts = mamba.view(*mamba.shape[:-1], groups, -1)
        mamba = F.rms_norm(parts, parts.shape[-1:], eps=eps).view(y.shape) * norms[0]
        attended = F.rms_norm(attended, attended.shape[-1:], eps=eps) * norms[1]
    if scales[0] is not None:
        mamba = mamba * scales[0]
    if scales[1] is not None:
        attended = attended * scales[1]
    if len(weights) == 2:
        mamba, attended = F.linear(mamba, weights[0]), F.linear(attended, weights[1])
    if fusion == "concat":
        fused = torch.cat((mamba, attended), dim=-1)
    else:
        fused = mamba + attended if fusion == "add" else mamba - attended
    return fused if len(weights) == 2 else F.linear(fused, weights[0])
