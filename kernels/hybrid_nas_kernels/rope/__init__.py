"""Rotary position encoding by halves of each head. README.md has the mathematics."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick, triton_or
from hybrid_nas_kernels.rope.in_place import rope_in_place
from hybrid_nas_kernels.rope.reference import rope_reference

__all__ = ["IMPLEMENTATIONS", "choose", "rope", "rope_in_place", "rope_reference", "rope_table"]

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
