"""A decoding step's rotation, and keys and values put into the cache, as one Triton kernel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 8
"""Heads a program."""


@triton.jit
def _copy(x_ptr, y_ptr, stride_y, first, H: tl.constexpr, D: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr):
    """Heads from number `first`, up to H."""
    h = first + tl.arange(0, BH)
    d = tl.arange(0, BD)
    mask = (h < H)[:, None] & (d < D)[None, :]
    value = tl.load(x_ptr + h[:, None] * D + d[None, :], mask=mask, other=0.0)
    tl.store(y_ptr + h[:, None] * stride_y + d[None, :], value, mask=mask)


@triton.jit
def _turn(
    qk_ptr, cos_ptr, sin_ptr, q_ptr, keys_ptr, stride_keys, first,
    HEADS: tl.constexpr, KV: tl.constexpr, HALF: tl.constexpr, BH: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Heads from number `first`, queries to one place and keys to another."""
    h = first + tl.arange(0, BH)
    d = tl.arange(0, BD)
    there = (d < HALF)[None, :]
    cos = tl.load(cos_ptr + d, mask=d < HALF, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(sin_ptr + d, mask=d < HALF, other=0.0).to(tl.float32)[None, :]
    x = qk_ptr + h[:, None] * (2 * HALF) + d[None, :]
    mask = (h < HEADS + KV)[:, None] & there
    low = tl.load(x, mask=mask, other=0.0).to(tl.float32)
    high = tl.load(x + HALF, mask=mask, other=0.0).to(tl.float32)
    one = (low * cos - high * sin).to(qk_ptr.dtype.element_ty)
    other = (high * cos + low * sin).to(qk_ptr.dtype.element_ty)
    q = q_ptr + h[:, None] * (2 * HALF) + d[None, :]
    tl.store(q, one, mask=mask & (h < HEADS)[:, None])
    tl.store(q + HALF, other, mask=mask & (h < HEADS)[:, None])
    k = keys_ptr + (h[:, None] - HEADS) * stride_keys + d[None, :]
    tl.store(k, one, mask=mask & (h >= HEADS)[:, None])
    tl.store(k + HALF, other, mask=mask & (h >= HEADS)[:, None])


@triton.jit
def turn_and_cache(
    program, qk_ptr, v_ptr, cos_ptr, sin_ptr, q_ptr, keys_ptr, values_ptr,
    stride_qk, stride_v, stride_kb, stride_kh, stride_vb, stride_vh,
    TURNED: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    BH: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, TURNS: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    """BH heads of one row: of queries and keys in a row's first TURNS programs, of values in its last COPIES. Where
    nothing is TURNED, queries stay where they are."""
    b = (program // (TURNS + COPIES)).to(tl.int64)
    block = program % (TURNS + COPIES)
    qk = qk_ptr + b * stride_qk
    keys = keys_ptr + b * stride_kb
    if block >= TURNS:
        _copy(v_ptr + b * stride_v, values_ptr + b * stride_vb, stride_vh, (block - TURNS) * BH, KV, V, BH, BV)
    elif TURNED:
        _turn(qk, cos_ptr, sin_ptr, q_ptr + b * HEADS * D, keys, stride_kh, block * BH, HEADS, KV, D // 2, BH, BD)
    else:
        _copy(qk + HEADS * D, keys, stride_kh, block * BH, KV, D, BH, BD)


@triton.jit
def _rope_and_cache(
    qk_ptr, v_ptr, cos_ptr, sin_ptr, q_ptr, keys_ptr, values_ptr,
    stride_qk, stride_v, stride_kb, stride_kh, stride_vb, stride_vh,
    TURNED: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    BH: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, TURNS: tl.constexpr, COPIES: tl.constexpr,
):  # fmt: skip
    turn_and_cache(
        tl.program_id(0), qk_ptr, v_ptr, cos_ptr, sin_ptr, q_ptr, keys_ptr, values_ptr,
        stride_qk, stride_v, stride_kb, stride_kh, stride_vb, stride_vh,
        TURNED, HEADS, KV, D, V, BH, BD, BV, TURNS, COPIES,
    )  # fmt: skip


class Turn(NamedTuple):
    """The queries, written when `turn_and_cache` has run in so many programs; what it is given behind its number."""

    q: Tensor
    programs: int
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


def turn_parts(
    qk: Tensor, v: Tensor, keys: Tensor, values: Tensor, slot: int, table: tuple[Tensor, Tensor] | None
) -> Turn:
    """As `rope_and_cache`, and memory for the queries."""
    batch, both, head_dim = qk.shape
    kv_heads, value_dim = values.shape[2:]
    heads = both - kv_heads
    qk, v = (x if x.stride(-1) == 1 and x.stride(-2) == x.shape[-1] else x.contiguous() for x in (qk, v))
    q = qk[:, :heads] if table is None else torch.empty((batch, heads, head_dim), dtype=qk.dtype, device=qk.device)
    at_keys, at_values = keys[:, slot], values[:, slot]
    arguments = (
        qk, v, *(table or (qk, qk)), q, at_keys, at_values,
        qk.stride(0), v.stride(0), *at_keys.stride()[:2], *at_values.stride()[:2],
    )  # fmt: skip
    turned = kv_heads if table is None else both
    BH = min(BLOCK, triton.next_power_of_2(turned))
    constants = {
        "TURNED": table is not None, "HEADS": heads, "KV": kv_heads, "D": head_dim, "V": value_dim, "BH": BH,
        "BD": triton.next_power_of_2(head_dim if table is None else head_dim // 2),
        "BV": triton.next_power_of_2(value_dim),
        "TURNS": triton.cdiv(turned, BH), "COPIES": triton.cdiv(kv_heads, BH),
    }  # fmt: skip
    return Turn(q, batch * (constants["TURNS"] + constants["COPIES"]), arguments, constants)


def rope_and_cache_triton(
    qk: Tensor, v: Tensor, keys: Tensor, values: Tensor, slot: int, table: tuple[Tensor, Tensor] | None
) -> Tensor:
    """As `rope_and_cache`, for float32 and bfloat16, the rotation in float32."""
    turn = turn_parts(qk, v, keys, values, slot, table)
    _rope_and_cache[(turn.programs,)](*turn.arguments, **turn.constants)
    return turn.q
