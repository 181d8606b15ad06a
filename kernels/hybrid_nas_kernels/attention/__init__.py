"""Causal grouped-query softmax attention, full or in a sliding window with sinks. README.md has the mathematics."""

from __future__ import annotations

from torch import Tensor

from hybrid_nas_kernels.attention.reference import attention_reference, attention_step
from hybrid_nas_kernels.attention.sdpa import attention_sdpa
from hybrid_nas_kernels.dispatch import pick

__all__ = ["IMPLEMENTATIONS", "attention", "attention_reference", "attention_sdpa", "attention_step", "choose"]

IMPLEMENTATIONS = {"reference": attention_reference, "sdpa": attention_sdpa}


def choose() -> tuple[str, str]:
    """The implementation that "auto" takes, and why."""
    return "sdpa", "torch's own fused attention"


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, sinks: int = 0, implementation: str = "auto"
) -> Tensor:
    """Softmax attention of each token over itself and its past, scale head_dim ** -0.5.

    q (batch, tokens, heads, head_dim); k and v (batch, tokens, kv_heads, head_dim), head h reads h // (heads //
    kv_heads). With a `window`, token t sees t - window < s <= t, and the first `sinks` tokens beside. Returns like q.
    """
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"attention: heads must be a multiple of kv_heads, found {q.shape[2]} and {k.shape[2]}")
    return pick("attention", implementation, IMPLEMENTATIONS, choose)(q, k, v, window=window, sinks=sinks)
