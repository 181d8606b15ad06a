"""The decoding step of the convolution and the scan as one Triton kernel. The convolution's inputs are kept as a ring,
so that a program writes only the newest, which others have from the token itself; B and C each program makes anew."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 32
"""Channels of a head a program."""


@triton.jit
def _window(new_ptr, ring_ptr, weight_ptr, bias_ptr, c, mask, slot, K: tl.constexpr, BK: tl.constexpr):
    """The convolution of channels c, with SiLU, and their newest inputs."""
    k = tl.arange(0, BK)
    new = tl.load(new_ptr + c, mask=mask, other=0.0)
    older = mask[:, None] & (k < K)[None, :]
    ring = tl.load(ring_ptr + c[:, None] * K + k[None, :], mask=older, other=0.0).to(tl.float32)
    new = new.to(ring_ptr.dtype.element_ty)
    ring = tl.where((k == slot)[None, :], new[:, None].to(tl.float32), ring)
    tap = (k - slot - 1 + K) % K  # the newest meets the last tap
    weight = tl.load(weight_ptr + c[:, None] * K + tap[None, :], mask=older, other=0.0).to(tl.float32)
    total = tl.sum(ring * weight, 1) + tl.load(bias_ptr + c, mask=mask, other=0.0).to(tl.float32)
    return total * tl.sigmoid(total), new


@triton.jit
def conv_scan(
    bh, block, xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
    stride_xbc, stride_dt, slot, H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    CHANNELS: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """BP channels of one head of one row."""
    bh = bh.to(tl.int64)
    b = bh // H
    h = bh % H
    p = block * BP + tl.arange(0, BP)
    n = tl.arange(0, BN)
    ring = ring_ptr + b * CHANNELS * K
    new = xbc_ptr + b * stride_xbc
    place = state_ptr + (bh * P + p[:, None]) * N + n[None, :]
    mask = (p < P)[:, None] & (n < N)[None, :]
    state = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    x_at = h * P + p
    b_at = H * P + (h // SHARE) * N + n
    c_at = b_at + (H // SHARE) * N
    x, x_new = _window(new, ring, weight_ptr, bias_ptr, x_at, p < P, slot, K, BK)
    B, b_new = _window(new, ring, weight_ptr, bias_ptr, b_at, n < N, slot, K, BK)
    C, c_new = _window(new, ring, weight_ptr, bias_ptr, c_at, n < N, slot, K, BK)
    tl.store(ring + x_at * K + slot, x_new, mask=p < P)
    owner = n < tl.where(h % SHARE + block == 0, N, 0)
    tl.store(ring + b_at * K + slot, b_new, mask=owner)
    tl.store(ring + c_at * K + slot, c_new, mask=owner)
    dt = tl.load(dt_ptr + b * stride_dt + h).to(tl.float32) + tl.load(dt_bias_ptr + h).to(tl.float32)
    dt = tl.maximum(dt, 0.0) + tl.log(1 + tl.exp(-tl.abs(dt)))
    A = -tl.exp(tl.load(A_ptr + h).to(tl.float32))
    state = state * tl.exp(dt * A) + (dt * x)[:, None] * B[None, :]
    tl.store(place, state.to(state_ptr.dtype.element_ty), mask=mask)
    y = tl.sum(state * C[None, :], 1) + tl.load(d_ptr + h).to(tl.float32) * x
    tl.store(y_ptr + bh * P + p, y.to(y_ptr.dtype.element_ty), mask=p < P)


@triton.jit
def _conv_scan_step(
    xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
    stride_xbc, stride_dt, slot, H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    CHANNELS: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    conv_scan(
        tl.program_id(0), tl.program_id(1),
        xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
        stride_xbc, stride_dt, slot, H, SHARE, P, N, CHANNELS, K, BK, BP, BN,
    )  # fmt: skip


class Scan(NamedTuple):
    """What `conv_scan` is given behind the numbers of a row's head and of its block, how many there are of each, and
    its output."""

    y: Tensor
    grid: tuple[int, int]
    arguments: tuple[Any, ...]
    constants: dict[str, Any]


def conv_scan_parts(
    xBC: Tensor,
    dt: Tensor,
    conv: Tensor,
    state: Tensor,
    position: int,
    conv_weight: Tensor,
    conv_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    dt_bias: Tensor,
    block: int = BLOCK,
) -> Scan:
    """As `conv_scan_step`, `block` channels of a head a program, and memory for its output."""
    batch, heads, head_dim, d_state = state.shape
    channels, taps = conv_weight.shape
    xBC, dt = (v if v.stride(-1) == 1 else v.contiguous() for v in (xBC, dt))
    y = torch.empty((batch, heads, head_dim), dtype=xBC.dtype, device=xBC.device)
    BP = min(block, triton.next_power_of_2(head_dim))
    arguments = (
        xBC, dt, conv, state, conv_weight.contiguous(), conv_bias, A_log, D, dt_bias, y,
        xBC.stride(0), dt.stride(0), position % taps,
    )  # fmt: skip
    constants = {
        "H": heads, "SHARE": heads * d_state * 2 // (channels - heads * head_dim), "P": head_dim, "N": d_state,
        "CHANNELS": channels, "K": taps, "BK": triton.next_power_of_2(taps), "BP": BP,
        "BN": triton.next_power_of_2(d_state),
    }  # fmt: skip
    return Scan(y, (batch * heads, triton.cdiv(head_dim, BP)), arguments, constants)


def conv_scan_step_triton(*given: Any) -> Tensor:
    """As `conv_scan_step`; `conv` and `state` have no gaps."""
    scan = conv_scan_parts(*given)
    _conv_scan_step[scan.grid](*scan.arguments, **scan.constants)
    return scan.y
