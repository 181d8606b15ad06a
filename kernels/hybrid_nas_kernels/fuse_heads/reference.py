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
    return fuse_halves((y * F.silu(z), attended), (groups, 1), norms, scales, fusion, weights, eps)


def fuse_halves(
    halves: tuple[Tensor, Tensor],
    groups: tuple[int, int],
    norms: tuple[Tensor, Tensor] | None,
    scales: tuple[Tensor | None, Tensor | None],
    fusion: str,
    weights: tuple[Tensor, ...],
    eps: float,
) -> Tensor:
    """Two halves of any kind, their gates behind them: norms (each in its `groups`), scales, fusion, projection.

    Gains and scales may be wider than the halves, float32 beside bfloat16; products take the type of `weights`.
    """
    outputs: list[Tensor] = []
    for i, half in enumerate(halves):
        if norms is not None:
            parts = half.view(*half.shape[:-1], groups[i], -1)
            half = F.rms_norm(parts, parts.shape[-1:], eps=eps).view(half.shape) * norms[i]
        scale = scales[i]
        outputs.append(half if scale is None else half * scale)
    if len(weights) == 2:
        outputs = [F.linear(half.to(weight.dtype), weight) for half, weight in zip(outputs, weights, strict=True)]
    first, second = outputs
    if fusion == "concat":
        fused = torch.cat((first, second), dim=-1)
    else:
        fused = first + second if fusion == "add" else first - second
    return fused if len(weights) == 2 else F.linear(fused.to(weights[0].dtype), weights[0])
