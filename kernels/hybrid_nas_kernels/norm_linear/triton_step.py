"""Norms and products of a few rows, as in decoding, as Triton kernels: a weight is read once, at the speed of memory,
and what stands before a product (norm, gate) or behind it (a sum) costs no launch of its own.

A norm divides a whole row by one number, which its product can be divided by as well: so it is summed on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.triton_sums import rows_of

ROWS = 16
"""The most rows: those of one tensor-core tile."""
WEIGHTS = 4


def few(x: Tensor, *weights: Tensor) -> bool:
    """Whether these kernels serve: few rows, no gradient, and matrices of the same dtype as x."""
    return (
        x.numel() <= ROWS * x.shape[-1]
        and all(weight.dtype == x.dtype for weight in weights)
        and not (torch.is_grad_enabled() and any(v.requires_grad for v in (x, *weights)))
    )


@triton.jit
def _input(
    x_ptr, z_ptr, gain_ptr, stride_x, stride_z, rows, first,
    K: tl.constexpr, BR: tl.constexpr, BK: tl.constexpr, NORMED: tl.constexpr, GATED: tl.constexpr,
):  # fmt: skip
    """x (GATED: x silu(z)) from channel `first` on, times its gain where NORMED; and what of its squares is there."""
    r = tl.arange(0, BR)
    k = first + tl.arange(0, BK)
    mask = (r < rows)[:, None] & (k < K)[None, :]
    x = tl.load(x_ptr + r[:, None] * stride_x + k[None, :], mask=mask, other=0.0)
    value = x.to(tl.float32)
    if GATED:
        z = tl.load(z_ptr + r[:, None] * stride_z + k[None, :], mask=mask, other=0.0).to(tl.float32)
        value *= z * tl.sigmoid(z)
    squares = tl.sum(value * value, 1)
    if NORMED:
        value *= tl.load(gain_ptr + k, mask=k < K, other=0.0).to(tl.float32)[None, :]
    return value.to(x_ptr.dtype.element_ty), squares


@triton.jit
def _weight(w_ptr, n, first, N, K: tl.constexpr, BK: tl.constexpr):
    k = first + tl.arange(0, BK)
    return tl.load(
        w_ptr + n.to(tl.int64)[None, :] * K + k[:, None], mask=(n < N)[None, :] & (k < K)[:, None], other=0.0
    )


@triton.jit
def _product(
    x_ptr, z_ptr, gain_ptr, w_ptr, stride_x, stride_z, rows, n, N, eps,
    K: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    NORMED: tl.constexpr, GATED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Rows n of the weight times the input: (BR, BN) float32."""
    total = tl.zeros((BR, BN), tl.float32)
    squares = tl.zeros((BR,), tl.float32)
    for first in range(0, K, BK):
        x, more = _input(x_ptr, z_ptr, gain_ptr, stride_x, stride_z, rows, first, K, BR, BK, NORMED, GATED)
        total = tl.dot(x, _weight(w_ptr, n, first, N, K, BK), total, input_precision=PRECISION)
        squares += more
    if NORMED:
        total *= (1 / tl.sqrt(squares / K + eps))[:, None]
    return total


@triton.jit
def _several(
    x_ptr, gain_ptr, w0_ptr, w1_ptr, w2_ptr, w3_ptr, y_ptr, stride_x, stride_y, rows, N0, N1, N2, N3, eps,
    K: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    NORMED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The products of one input with up to four weights, side by side."""
    block = tl.program_id(0)
    w_ptr = w0_ptr
    N = N0
    column = 0
    for i in tl.static_range(1, 4):
        if N == 0 or block >= tl.cdiv(N, BN):
            block -= tl.cdiv(N, BN)
            column += N
            if i == 1:
                w_ptr = w1_ptr
                N = N1
            elif i == 2:
                w_ptr = w2_ptr
                N = N2
            else:
                w_ptr = w3_ptr
                N = N3
    r = tl.arange(0, BR)
    n = block * BN + tl.arange(0, BN)
    y = _product(
        x_ptr, x_ptr, gain_ptr, w_ptr, stride_x, stride_x, rows, n, N, eps, K, BR, BN, BK, NORMED, False, PRECISION
    )
    place = y_ptr + r[:, None] * stride_y + column + n[None, :]
    tl.store(place, y.to(y_ptr.dtype.element_ty), mask=(r < rows)[:, None] & (n < N)[None, :])


@triton.jit
def _gate_up(
    x_ptr, gain_ptr, gate_ptr, up_ptr, y_ptr, stride_x, rows, N, eps,
    K: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    NORMED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    r = tl.arange(0, BR)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    gate = tl.zeros((BR, BN), tl.float32)
    up = tl.zeros((BR, BN), tl.float32)
    squares = tl.zeros((BR,), tl.float32)
    for first in range(0, K, BK):
        x, more = _input(x_ptr, x_ptr, gain_ptr, stride_x, stride_x, rows, first, K, BR, BK, NORMED, False)
        gate = tl.dot(x, _weight(gate_ptr, n, first, N, K, BK), gate, input_precision=PRECISION)
        up = tl.dot(x, _weight(up_ptr, n, first, N, K, BK), up, input_precision=PRECISION)
        squares += more
    if NORMED:
        inverse = (1 / tl.sqrt(squares / K + eps))[:, None]
        gate *= inverse
        up *= inverse
    y = gate * tl.sigmoid(gate) * up
    tl.store(
        y_ptr + r[:, None] * N + n[None, :], y.to(y_ptr.dtype.element_ty), mask=(r < rows)[:, None] & (n < N)[None, :]
    )


@triton.jit
def _close(
    x_ptr, z_ptr, gain_ptr, w_ptr, x2_ptr, gain2_ptr, w2_ptr, added_ptr, y_ptr,
    stride_x, stride_z, stride_x2, stride_added, rows, N, sign, eps,
    K: tl.constexpr, K2: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    NORMED: tl.constexpr, GATED: tl.constexpr, NORMED2: tl.constexpr, ADDED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """One product or, with K2, the sum of two, the second times `sign`; ADDED: and of what is there already."""
    r = tl.arange(0, BR)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    y = _product(
        x_ptr, z_ptr, gain_ptr, w_ptr, stride_x, stride_z, rows, n, N, eps, K, BR, BN, BK, NORMED, GATED, PRECISION
    )
    if K2 > 0:
        y += sign * _product(
            x2_ptr, x2_ptr, gain2_ptr, w2_ptr, stride_x2, stride_x2, rows, n, N, eps,
            K2, BR, BN, BK, NORMED2, False, PRECISION,
        )  # fmt: skip
    mask = (r < rows)[:, None] & (n < N)[None, :]
    if ADDED:
        y += tl.load(added_ptr + r[:, None] * stride_added + n[None, :], mask=mask, other=0.0).to(tl.float32)
    tl.store(y_ptr + r[:, None] * N + n[None, :], y.to(y_ptr.dtype.element_ty), mask=mask)


SEVERAL = {"BR": ROWS, "BN": 16, "BK": 256, "num_warps": 4, "num_stages": 4}
GATE_UP = {"BR": ROWS, "BN": 16, "BK": 256, "num_warps": 4, "num_stages": 4}
CLOSE = {"BR": ROWS, "BN": 16, "BK": 256, "num_warps": 4, "num_stages": 4}


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


def linears_step(x: Tensor, norm: Tensor | None, weights: Sequence[Tensor], eps: float) -> Tensor:
    """rms_norm(x) * norm (x itself without it) times each of up to WEIGHTS weights, side by side, x of `few` rows."""
    assert 1 <= len(weights) <= WEIGHTS
    flat = rows_of(x)
    sizes = [len(weight) for weight in weights] + [0] * (WEIGHTS - len(weights))
    y = torch.empty((*x.shape[:-1], sum(sizes)), dtype=x.dtype, device=x.device)
    matrices = [weight.contiguous() for weight in weights]
    matrices += matrices[:1] * (WEIGHTS - len(weights))
    _several[(sum(triton.cdiv(size, SEVERAL["BN"]) for size in sizes),)](
        flat, flat if norm is None else norm, *matrices, y, flat.stride(0), sum(sizes), len(flat), *sizes, eps,
        K=flat.shape[1], NORMED=norm is not None, PRECISION=_precision(x), **SEVERAL,
    )  # fmt: skip
    return y


def gate_up_step(x: Tensor, norm: Tensor | None, gate: Tensor, up: Tensor, eps: float) -> Tensor:
    """silu(gate n) * (up n), n = rms_norm(x) * norm or x itself, x of `few` rows."""
    flat = rows_of(x)
    y = torch.empty((*x.shape[:-1], len(gate)), dtype=x.dtype, device=x.device)
    _gate_up[(triton.cdiv(len(gate), GATE_UP["BN"]),)](
        flat, flat if norm is None else norm, gate.contiguous(), up.contiguous(), y,
        flat.stride(0), len(flat), len(gate), eps,
        K=flat.shape[1], NORMED=norm is not None, PRECISION=_precision(x), **GATE_UP,
    )  # fmt: skip
    return y


def close_step(
    x: Tensor,
    weight: Tensor,
    eps: float,
    gate: Tensor | None = None,
    norm: Tensor | None = None,
    second: tuple[Tensor, Tensor | None, Tensor, int] | None = None,
    added: Tensor | None = None,
) -> Tensor:
    """`weight` times x, or with `gate` x silu(gate), through an RMSNorm of the gain `norm`; plus the same of `second`
    (its input, gain, weight and sign), plus `added`. All of `few` rows."""
    flat = rows_of(x)
    z = flat if gate is None else rows_of(gate)
    x2, norm2, weight2, sign = (flat, None, weight, 1) if second is None else second
    x2 = rows_of(x2)
    kept = flat if added is None else rows_of(added)
    y = torch.empty((*x.shape[:-1], len(weight)), dtype=x.dtype, device=x.device)
    _close[(triton.cdiv(len(weight), CLOSE["BN"]),)](
        flat, z, flat if norm is None else norm, weight.contiguous(),
        x2, x2 if norm2 is None else norm2, weight2.contiguous(), kept, y,
        flat.stride(0), z.stride(0), x2.stride(0), kept.stride(0), len(flat), len(weight), float(sign), eps,
        K=flat.shape[1], K2=0 if second is None else x2.shape[1],
        NORMED=norm is not None, GATED=gate is not None, NORMED2=norm2 is not None, ADDED=added is not None,
        PRECISION=_precision(x), **CLOSE,
    )  # fmt: skip
    return y
