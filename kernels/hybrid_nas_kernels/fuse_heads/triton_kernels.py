"""The end of a parallel hybrid: gates and norms as Triton kernels, scales folded into gains, the second projection's
sum or difference part of its product."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.adjacent import adjacent
from hybrid_nas_kernels.fuse_heads.triton_step import fuse_step
from hybrid_nas_kernels.linear_step import linear_step
from hybrid_nas_kernels.norm_linear.triton_kernels import gated_rms_norm, rms_norm
from hybrid_nas_kernels.swiglu import triton_kernels as swiglu_kernels


def fuse_heads_triton(
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
    """As `fuse_heads`, for float32 and bfloat16; gains and scales may be float32 beside bfloat16 tokens."""
    left = list(scales)
    if norms is None:
        mamba = swiglu_kernels.silu_mul(z, y)
    else:
        gains = list(norms)
        for i, scale in enumerate(scales):
            if scale is not None and scale.ndim == 1:  # a weight of the layer, not a value a token
                gains[i], left[i] = gains[i] * scale, None
        if y.ndim == 2 and groups == 1 and len(weights) == 2 and left == [None, None] and not torch.is_grad_enabled():
            whole = adjacent(weights, dim=1)
            if whole is not None:
                return fuse_step(y, z, attended, (gains[0], gains[1]), 1 if fusion == "add" else -1, whole, eps)
        mamba = gated_rms_norm(y, z, gains[0], groups, eps)
        attended = rms_norm(attended, gains[1], eps)
    if left[0] is not None:
        mamba = (mamba * left[0]).to(y.dtype)
    if left[1] is not None:
        attended = (attended * left[1]).to(y.dtype)
    if fusion == "concat":
        return linear_step(torch.cat((mamba, attended), dim=-1), weights[0])
    sign = 1 if fusion == "add" else -1
    if len(weights) == 1:
        return linear_step(torch.add(mamba, attended, alpha=sign), weights[0])
    out = F.linear(mamba.flatten(0, -2), weights[0])
    out.addmm_(attended.flatten(0, -2), weights[1].t(), alpha=sign)  # in place: torch's addmm would copy it first
    return out.view(*mamba.shape[:-1], -1)
