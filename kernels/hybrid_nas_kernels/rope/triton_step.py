"""The decoding step of rotary position encoding as one Triton kernel: turned queries, and turned keys and values put
where a cache keeps them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _step(
    x_ptr, v_ptr, cos_ptr, sin_ptr, q_ptr, key_ptr, value_ptr, stride_x, stride_v, stride_k, stride_kv,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, VALUES: tl.constexpr,
    BH: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    h = tl.arange(0, BH)
    d = tl.arange(0, BD)
    mask = (h < HEADS + KV)[:, None] & (d < HALF)[None, :]
    cos = tl.load(cos_ptr + d, mask=d < HALF, other=0.0)[None, :]
    sin = tl.load(sin_ptr + d, mask=d < HALF, other=0.0)[None, :]
    place = h[:, None] * (2 * HALF) + d[None, :]
    low = tl.load(x_ptr + b * stride_x + place, mask=mask, other=0.0).to(tl.float32)
    high = tl.load(x_ptr + b * stride_x + place + HALF, mask=mask, other=0.0).to(tl.float32)
    first = (low * cos - high * sin).to(q_ptr.dtype.element_ty)
    second = (high * cos + low * sin).to(q_ptr.dtype.element_ty)
    is_query = mask & (h < HEADS)[:, None]
    q = q_ptr + b * (2 * HEADS * HALF) + place
    tl.store(q, first, mask=is_query)
    tl.store(q + HALF, second, mask=is_query)
    is_key = mask & (h >= HEADS)[:, None]
    key = key_ptr + b * stride_k + place - 2 * HEADS * HALF
    tl.store(key, first, mask=is_key)
    tl.store(key + HALF, second, mask=is_key)
    i = tl.arange(0, BV)
    value = tl.load(v_ptr + b * stride_v + i, mask=i < VALUES, other=0.0)
    tl.store(value_ptr + b * stride_kv + i, value, mask=i < VALUES)


def rope_step_triton(x: Tensor, v: Tensor, cos: Tensor, sin: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As `rope_step`."""
    batch, turned, head_dim = x.shape
    kv_heads, value_dim = v.shape[1:]
    x, v = (t if t.stride(-1) == 1 and t.stride(-2) == t.shape[-1] else t.contiguous() for t in (x, v))
    q = torch.empty((batch, turned - kv_heads, head_dim), dtype=x.dtype, device=x.device)
    _step[(batch,)](
        x, v, cos, sin, q, key, value, x.stride(0), v.stride(0), key.stride(0), value.stride(0),
        HEADS=turned - kv_heads, KV=kv_heads, HALF=head_dim // 2, VALUES=kv_heads * value_dim,
        BH=triton.next_power_of_2(turned), BD=triton.next_power_of_2(head_dim // 2),
        BV=triton.next_power_of_2(kv_heads * value_dim),
    )  # fmt: skip
    return q
