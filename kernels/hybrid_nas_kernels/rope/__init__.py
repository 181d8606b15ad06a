"""Rotary position encoding by halves of each head. README.md has the mathematics."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick, runs_triton, triton_or
from hybrid_nas_kernels.rope.in_place import rope_in_place
from hybrid_nas_kernels.rope.reference import Cached, rope_and_cache_reference, rope_reference

__all__ = [
    "IMPLEMENTATIONS",
    "Cached",
    "choose",
    "rope",
    "rope_and_cache",
    "rope_and_cache_reference",
    "rope_in_place",
    "rope_reference",
    "rope_table",
]

IMPLEMENTATIONS = {
    "reference": rope_reference,
    "in_place": rope_in_place,
    "triton": deferred("hybrid_nas_kernels.rope.triton_kernels", "rope_triton", needs="triton"),
}


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    if device.type != "cpu":
        return triton_or(
            device, lambda: ("reference", f"in_place was measured on the CPU alone, not on {device.type}"), dtype
        )
    return "in_place", "fewer passes over the tokens"


def rope(x: Tensor, cos: Tensor, sin: Tensor, *, implementation: str = "auto") -> Tensor:
    """Turn each pair (x[i], x[i + head_dim / 2]) by its token's angle i.

    x (batch, tokens, heads, head_dim); cos and sin (tokens, head_dim / 2), the rows of `rope_table`. Returns like x.
    """
    run = pick("rope", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.dtype))
    return run(x, cos, sin)


def rope_and_cache(
    qk: Tensor, v: Tensor, keys: Tensor, values: Tensor, slot: int, table: tuple[Tensor, Tensor] | None
) -> Tensor:
    """The queries of one token, turned, (batch, heads, head_dim); its keys, turned, and values are put into the cached
    ones at `slot`, in place. No gradients. Triton on a CUDA device, `rope` and two copies elsewhere.

    qk (batch, heads + kv_heads, head_dim), the queries first; v (batch, kv_heads, value_dim); keys (batch, slots,
    kv_heads, head_dim) and values (..., value_dim), each head's channels without gaps; `table` is the token's row of
    `rope_table`, cos and sin (1, head_dim / 2), or None: nothing is turned.
    """
    if runs_triton(qk):
        return rope_and_cache_triton(qk, v, keys, values, slot, table)  # type: ignore[no-any-return]
    return rope_and_cache_reference(qk, v, keys, values, slot, table, rope)


rope_and_cache_triton = deferred("hybrid_nas_kernels.rope.triton_step", "rope_and_cache_triton", needs="triton")


def rope_table(theta: float, head_dim: int, start: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta ** (-2 i / head_dim), (tokens, head_dim / 2) from position `start`, float32."""
    length = 1 << max(start + tokens - 1, 1).bit_length()  # few tables serve every length, none a table a token
    cos, sin = _table(theta, head_dim, length, device)
    return cos[start : start + tokens], sin[start : start + tokens]


@lru_cache(maxsize=16)
def _table(theta: float, head_dim: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):  # an inference tensor could not be saved for a later backward
        frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
        angle = torch.arange(tokens, dtype=torch.float64, device=device)[:, None] * frequency
        return angle.cos().float(), angle.sin().float()
