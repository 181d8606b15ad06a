"""Causal grouped-query softmax attention, written out: the meaning, and its decoding step."""

from __future__ import annotations

import torch
from torch import Tensor


def visible(tokens: int, window: int | None, sinks: int, device: torch.device | None = None) -> Tensor:
    """(tokens, tokens) bool: True where token t (row) sees token s: s <= t, and t - window < s or s < sinks."""
    t = torch.arange(tokens, device=device)
    seen = t[:, None] >= t
    if window is not None:
        seen &= (t[:, None] - t < window) | (t < sinks)
    return seen


def attention_reference(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, sinks: int = 0) -> Tensor:
    """Scores, mask, softmax, average, in the dtype of `q`. Shapes as in `attention`."""
    share = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(share, dim=2), v.repeat_interleave(share, dim=2)
    scores = torch.einsum("bthd,bshd->bhts", q, k) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~visible(q.shape[1], window, sinks, q.device), -torch.inf)
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v)


def attention_step_reference(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One token over every cached slot given, whose order does not matter.

    q (batch, heads, head_dim); keys (batch, slots, kv_heads, head_dim) and values (..., value_dim); returns (batch,
    heads, value_dim).
    """
    batch, head_dim = q.shape[0], q.shape[2]
    grouped = q.view(batch, keys.shape[2], -1, head_dim)
    scores = torch.einsum("bkhd,bskd->bkhs", grouped, keys.to(q.dtype)) * head_dim**-0.5
    return torch.einsum("bkhs,bskd->bkhd", scores.softmax(-1), values.to(q.dtype)).reshape(*q.shape[:2], -1)
