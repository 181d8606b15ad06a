"""Attention by the package flash-attn, for a GPU: a window costs what it sees, where a mask costs the whole square."""

from __future__ import annotations

from flash_attn import flash_attn_func
from torch import Tensor


def attention_flash(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, sinks: int = 0) -> Tensor:
    """As `attention`, in bfloat16 or float16, of values as wide as keys, and without sinks."""
    if sinks and window is not None and window < q.shape[1]:
        raise ValueError("attention: flash-attn knows no sinks; ask for sdpa")
    seen = (-1, -1) if window is None else (window - 1, 0)
    y: Tensor = flash_attn_func(q, k, v, causal=True, window_size=seen)
    return y
