"""Causal attention by torch's scaled_dot_product_attention."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.attention.reference import visible


@lru_cache(maxsize=8)
def _mask(tokens: int, window: int, sinks: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # an inference tensor could not be saved for a later backward
        return visible(tokens, window, sinks, device)


def attention_sdpa(q: Tensor, k: Tensor, v: Tensor, *, window: int | None = None, sinks: int = 0) -> Tensor:
    """As `attention`. A window that covers the sequence is no window."""
    tokens = q.shape[1]
    shared = q.shape[2] != k.shape[2]
    q, k, v = (value.transpose(1, 2) for value in (q, k, v))
    if window is None or window >= tokens:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=shared)
    else:
        mask = _mask(tokens, window, sinks, q.device)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=shared)
    return y.transpose(1, 2)
