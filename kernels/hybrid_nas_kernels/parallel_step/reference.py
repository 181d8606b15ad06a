"""A decoding step of a parallel hybrid's heads: the meaning."""

from __future__ import annotations

from torch import Tensor

from hybrid_nas_kernels.attention.reference import attention_step_reference
from hybrid_nas_kernels.fuse_heads.reference import fuse_heads_reference
from hybrid_nas_kernels.mamba2.step import conv_scan_step_reference
from hybrid_nas_kernels.rope.reference import Cached, rope_and_cache_reference

Mamba = tuple[Tensor, Tensor, Tensor, Tensor, int, Tensor, Tensor, Tensor, Tensor, Tensor]
"""xBC, dt, conv, state, position, conv_weight, conv_bias, A_log, D, dt_bias: the arguments of `conv_scan_step`."""


def parallel_step_reference(
    cached: Cached,
    mamba: Mamba,
    z: Tensor,
    norms: tuple[Tensor, Tensor],
    fusion: str,
    weights: tuple[Tensor, Tensor],
    eps: float,
) -> Tensor:
    """As `parallel_step`."""
    q = rope_and_cache_reference(*cached)
    attended = attention_step_reference(q, *cached[2:4]).flatten(1)
    y = conv_scan_step_reference(*mamba).flatten(1)
    return fuse_heads_reference(y, z, attended, norms, (None, None), fusion, weights, 1, eps)
