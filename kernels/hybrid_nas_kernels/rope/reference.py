"""Rotary position encoding by halves: the meaning [arXiv:2104.09864, in the layout of Llama and GPT-NeoX]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Cached = tuple[Tensor, Tensor, Tensor, Tensor, int, "tuple[Tensor, Tensor] | None"]
"""qk, v, keys, values, slot, table: the arguments of `rope_and_cache`."""


def rope_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Shapes as in `rope`."""
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rope_and_cache_reference(
    qk: Tensor,
    v: Tensor,
    keys: Tensor,
    values: Tensor,
    slot: int,
    table: tuple[Tensor, Tensor] | None,
    rope: Callable[[Tensor, Tensor, Tensor], Tensor] = rope_reference,
) -> Tensor:
    """As `rope_and_cache`, turned by `rope`."""
    if table is not None:
        qk = rope(qk[:, None], *table)[:, 0]
    kv_heads = keys.shape[2]
    q, k = torch.split(qk, [qk.shape[1] - kv_heads, kv_heads], dim=1)
    keys[:, slot] = k
    values[:, slot] = v
    return q
