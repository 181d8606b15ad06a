"""The decoding step of attention as Triton kernels: the cached slots are cut among programs, so that a few sequences
fill the device, and each program's softmax is put together in a second launch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 264
"""Programs to aim at: two a multiprocessor of an H100, at 32,768 slots faster than four or eight."""


@triton.jit
def _part(
    q_ptr, k_ptr, v_ptr, out_ptr, top_ptr, total_ptr, slots, part, scale,
    stride_q, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    ALIGN_K: tl.constexpr, ALIGN_V: tl.constexpr,
    HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    BG: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    b = (tl.program_id(0) // KV).to(tl.int64)
    kv = tl.program_id(0) % KV
    split = tl.program_id(1)
    g = tl.arange(0, BG)
    d = tl.arange(0, BD)
    v = tl.arange(0, BV)
    share: tl.constexpr = HEADS // KV
    head = b * stride_q + (kv * share + g) * D
    q = tl.load(q_ptr + head[:, None] + d[None, :], mask=(g < share)[:, None] & (d < D)[None, :], other=0.0)
    e = BD + tl.arange(0, 16 if BE == 0 else BE)  # what is left of a head that is little longer than a power of two
    q_rest = tl.load(q_ptr + head[:, None] + e[None, :], mask=(g < share)[:, None] & (e < D)[None, :], other=0.0)
    keys = k_ptr + b * (stride_kb * ALIGN_K) + kv * (stride_kh * ALIGN_K)
    values_of = v_ptr + b * (stride_vb * ALIGN_V) + kv * (stride_vh * ALIGN_V)
    top = tl.full((BG,), -1e30, tl.float32)
    total = tl.zeros((BG,), tl.float32)
    out = tl.zeros((BG, BV), tl.float32)
    last = tl.minimum((split + 1) * part, slots)
    for first in range(split * part, last, BS):
        s = first + tl.arange(0, BS)
        seen = s < last
        k = tl.load(
            keys + s[None, :] * (stride_ks * ALIGN_K) + d[:, None],
            mask=seen[None, :] & (d < D)[:, None], other=0.0,
        )  # fmt: skip
        scores = tl.dot(q, k.to(q.dtype), input_precision=PRECISION)
        if BE > 0:
            k_rest = tl.load(
                keys + s[None, :] * (stride_ks * ALIGN_K) + e[:, None],
                mask=seen[None, :] & (e < D)[:, None], other=0.0,
            )  # fmt: skip
            scores = tl.dot(q_rest, k_rest.to(q.dtype), scores, input_precision=PRECISION)
        scores *= scale
        scores = tl.where(seen[None, :], scores, -1e30)
        higher = tl.maximum(top, tl.max(scores, 1))
        keep = tl.exp(top - higher)
        weights = tl.where(seen[None, :], tl.exp(scores - higher[:, None]), 0.0)
        values = tl.load(
            values_of + s[:, None] * (stride_vs * ALIGN_V) + v[None, :],
            mask=seen[:, None] & (v < V)[None, :], other=0.0,
        )  # fmt: skip
        out = out * keep[:, None] + tl.dot(weights.to(q.dtype), values.to(q.dtype), input_precision=PRECISION)
        total = total * keep + tl.sum(weights, 1)
        top = higher
    row = (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + split) * BG + g
    tl.store(out_ptr + row[:, None] * BV + v[None, :], out, mask=(g < share)[:, None])
    tl.store(top_ptr + row, top, mask=g < share)
    tl.store(total_ptr + row, total, mask=g < share)


@triton.jit
def join_head(
    head, out_ptr, top_ptr, total_ptr, y_ptr, splits,
    SHARE: tl.constexpr, V: tl.constexpr, BG: tl.constexpr, BV: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One head of all rows': the parts' averages, weighed by their share of the softmax."""
    group = head // SHARE
    n = tl.arange(0, BN)
    v = tl.arange(0, BV)
    row = (group * splits + n) * BG + head % SHARE
    top = tl.load(top_ptr + row, mask=n < splits, other=-1e30)
    weight = tl.exp(top - tl.max(top, 0))
    total = tl.sum(weight * tl.load(total_ptr + row, mask=n < splits, other=0.0), 0)
    out = tl.load(out_ptr + row[:, None] * BV + v[None, :], mask=(n < splits)[:, None], other=0.0)
    y = tl.sum(out * weight[:, None], 0) / total
    tl.store(y_ptr + head * V + v, y.to(y_ptr.dtype.element_ty), mask=v < V)


@triton.jit
def _join(
    out_ptr, top_ptr, total_ptr, y_ptr, splits,
    SHARE: tl.constexpr, V: tl.constexpr, BG: tl.constexpr, BV: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    join_head(
        tl.program_id(0).to(tl.int64), out_ptr, top_ptr, total_ptr, y_ptr, splits, SHARE, V, BG, BV, BN
    )  # fmt: skip


class Parts(NamedTuple):
    """Memory for the heads' outputs (batch, heads, value_dim); what `join_head` is given around it to fill it."""

    y: Tensor
    parts: tuple[Tensor, Tensor, Tensor]
    splits: int
    constants: dict[str, int]


def attention_parts(q: Tensor, keys: Tensor, values: Tensor) -> Parts:
    """Each part of the cached slots for itself."""
    batch, heads, head_dim = q.shape
    slots, kv_heads, value_dim = values.shape[1:]
    share = heads // kv_heads
    q = q if q.stride(-1) == 1 and q.stride(-2) == head_dim else q.contiguous()
    keys, values = (v if v.stride(-1) == 1 else v.contiguous() for v in (keys, values))
    BG, BD, BV = (max(16, triton.next_power_of_2(n)) for n in (share, head_dim, value_dim))
    BE = max(16, triton.next_power_of_2(head_dim - BD // 2))
    BD, BE = (BD // 2, BE) if BD >= 32 and BE < BD // 2 else (BD, 0)
    block, warps = (32, 2) if head_dim + value_dim > 128 else (64, 4)  # slots at a time; the fastest at two shapes
    # What divides the strides, told to the compiler: with 72 channels a head it then reads 16 bytes at a time.
    align_k, align_v = (math.gcd(16, *t.stride()[:3]) for t in (keys, values))
    splits = max(1, min(triton.cdiv(slots, block), PROGRAMS // (batch * kv_heads), 128))
    part = triton.cdiv(triton.cdiv(slots, splits), block) * block
    splits = triton.cdiv(slots, part)
    out = torch.empty((batch * kv_heads, splits, BG, BV), dtype=torch.float32, device=q.device)
    top, total = (torch.empty((batch * kv_heads, splits, BG), dtype=torch.float32, device=q.device) for _ in range(2))
    y = torch.empty((batch, heads, value_dim), dtype=q.dtype, device=q.device)
    _part[(batch * kv_heads, splits)](
        q, keys, values, out, top, total, slots, part, head_dim**-0.5,
        q.stride(0), *(n // align_k for n in keys.stride()[:3]), *(n // align_v for n in values.stride()[:3]),
        ALIGN_K=align_k, ALIGN_V=align_v,
        HEADS=heads, KV=kv_heads, D=head_dim, V=value_dim, BG=BG, BS=block, BD=BD, BE=BE, BV=BV,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32", num_warps=warps,
    )  # fmt: skip
    constants = {"SHARE": share, "V": value_dim, "BG": BG, "BV": BV, "BN": triton.next_power_of_2(splits)}
    return Parts(y, (out, top, total), splits, constants)


def attention_step_triton(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """As `attention_step`, for float32 and bfloat16."""
    found = attention_parts(q, keys, values)
    batch, heads, _ = found.y.shape
    _join[(batch * heads,)](*found.parts, found.y, found.splits, **found.constants)
    return found.y
