"""Causal grouped-query softmax attention, full or in a sliding window with sinks. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.attention.blocked import attention_blocked
from hybrid_nas_kernels.attention.reference import attention_reference, attention_step_reference
from hybrid_nas_kernels.attention.sdpa import attention_sdpa
from hybrid_nas_kernels.dispatch import deferred, pick, runs_triton, why_not

__all__ = [
    "IMPLEMENTATIONS",
    "attention",
    "attention_blocked",
    "attention_reference",
    "attention_sdpa",
    "attention_step",
    "attention_step_reference",
    "choose",
]

FLASH_HEAD_DIM = 128
IMPLEMENTATIONS = {
    "reference": attention_reference,
    "blocked": attention_blocked,
    "sdpa": attention_sdpa,
    "flash_attn": deferred("hybrid_nas_kernels.attention.flash", "attention_flash", needs="flash_attn"),
}


def choose(device: torch.device, banded: bool = False) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why. `banded`: a window shorter than the sequence and no
    sinks, in a dtype and of head dimensions that flash-attn has."""
    if device.type == "cpu":
        return "blocked", "one triangle or band of blocks, where torch's own takes the whole square"
    if device.type == "cuda" and banded and why_not("flash_attn") is None:
        return "flash_attn", "a band of blocks, where torch's own takes the whole square"
    return "sdpa", "torch's own fused attention"


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, sinks: int = 0, implementation: str = "auto"
) -> Tensor:
    """Softmax attention of each token over itself and its past, scale head_dim ** -0.5.

    q (batch, tokens, heads, head_dim); k (batch, tokens, kv_heads, head_dim) and v (..., value_dim), head h reads
    h // (heads // kv_heads). With a `window`, token t sees t - window < s <= t, and the first `sinks` tokens beside.
    Returns (batch, tokens, heads, value_dim).
    """
    if q.shape[2] % k.shape[2]:
        raise ValueError(f"attention: heads must be a multiple of kv_heads, found {q.shape[2]} and {k.shape[2]}")
    banded = window is not None and window < q.shape[1] and not sinks and q.dtype == torch.bfloat16
    banded = banded and q.shape[-1] == v.shape[-1] <= FLASH_HEAD_DIM and q.shape[-1] % 8 == 0
    run = pick("attention", implementation, IMPLEMENTATIONS, lambda: choose(q.device, banded))
    return run(q, k, v, window=window, sinks=sinks)


def attention_step(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One token over every cached slot given, whose order does not matter. Triton on a CUDA device, the reference
    elsewhere.

    q (batch, heads, head_dim); keys (batch, slots, kv_heads, head_dim) and values (..., value_dim); returns (batch,
    heads, value_dim)."""
    return (attention_step_triton if runs_triton(q) else attention_step_reference)(q, keys, values)


attention_step_triton = deferred("hybrid_nas_kernels.attention.triton_step", "attention_step_triton", needs="triton")
