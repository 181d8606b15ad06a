"""The chunks of the scan going forward: log decays, the sweep that keeps the state, and the outputs. The sweep
also runs backward. README.md has the mathematics.

Names: Q tokens a chunk, H heads, P head_dim, N d_state. Logarithms are to the base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def log_decay(dt, A, Q: tl.constexpr, EXACT: tl.constexpr):
    """The log decay from the chunk's start to each token (Q), and over (j, i] as (i, j), -inf where i < j. In float32
    the difference of two sums would lose what a small segment needs after a large decay; EXACT takes it of two float32
    parts of a float64. bfloat16 cannot tell."""
    q = tl.arange(0, Q)
    if EXACT:
        total = tl.cumsum(dt.to(tl.float64) * (A.to(tl.float64) * LOG2_E), 0)
        start = total.to(tl.float32)
        low = (total - start.to(tl.float64)).to(tl.float32)
        segment = (start[:, None] - start[None, :]) + (low[:, None] - low[None, :])
    else:
        start = tl.cumsum(dt * (A * LOG2_E), 0)
        segment = start[:, None] - start[None, :]
    return start, tl.where(q[:, None] >= q[None, :], segment, float("-inf"))


@triton.jit
def to_end_decay(dt_ptr, t, tokens, stride_dt, A, Q: tl.constexpr):
    """The decay from each token to the chunk's end: that of all later tokens, summed from the end."""
    later = tl.load(dt_ptr + (t + 1) * stride_dt, mask=(t + 1 < tokens) & (tl.arange(0, Q) < Q - 1), other=0.0)
    return tl.exp2(tl.cumsum(later * (A * LOG2_E), 0, reverse=True))


@triton.jit
def sweep(
    x_ptr, dt_ptr, A_ptr, b_ptr, first_ptr, between_ptr, last_ptr,
    tokens, chunks, stride_xb, stride_xt, stride_db, stride_dt, stride_bb, stride_bt,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    HAS_FIRST: tl.constexpr, BACKWARD: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Forward: the state that enters each chunk, x^T B summed with decay to the chunk's end, and the last state.
    Backward, from the last chunk to the first, with dy for x and C for B: the gradient of the state that leaves each
    chunk, dy^T C summed with decay from the chunk's start, and the gradient of the first state."""
    bh = tl.program_id(0)
    b = (bh // H).to(tl.int64)
    h = bh % H
    p = tl.program_id(1) * BP + tl.arange(0, BP)
    n = tl.program_id(2) * BN + tl.arange(0, BN)
    q = tl.arange(0, Q)
    in_p = p < P
    in_n = n < N
    tile = p[:, None] * N + n[None, :]
    in_tile = in_p[:, None] & in_n[None, :]
    A = tl.load(A_ptr + h)
    state = tl.zeros((BP, BN), tl.float32)
    if HAS_FIRST:
        state = tl.load(first_ptr + bh.to(tl.int64) * P * N + tile, mask=in_tile, other=0.0)
    for i in range(chunks):
        c = i
        if BACKWARD:
            c = chunks - 1 - i
        t = c * Q + q
        seen = t < tokens
        slot = ((b * chunks + c) * H + h) * P * N
        tl.store(between_ptr + slot + tile, state.to(between_ptr.dtype.element_ty), mask=in_tile)
        dt = tl.load(dt_ptr + b * stride_db + t * stride_dt + h, mask=seen, other=0.0)
        log = dt * (A * LOG2_E)
        if BACKWARD:
            weight = tl.exp2(tl.cumsum(log, 0))
        else:
            weight = dt * to_end_decay(dt_ptr + b * stride_db + h, t, tokens, stride_dt, A, Q)
        x = tl.load(
            x_ptr + b * stride_xb + t[:, None] * stride_xt + h * P + p[None, :],
            mask=seen[:, None] & in_p[None, :], other=0.0,
        )  # fmt: skip
        bc = tl.load(
            b_ptr + b * stride_bb + t[:, None] * stride_bt + (h // SHARE) * N + n[None, :],
            mask=seen[:, None] & in_n[None, :], other=0.0,
        )  # fmt: skip
        weighted = (x.to(tl.float32) * weight[:, None]).to(x.dtype)
        state = state * tl.exp2(tl.sum(log, 0)) + tl.dot(tl.trans(weighted), bc, input_precision=PRECISION)
    tl.store(last_ptr + bh.to(tl.int64) * P * N + tile, state, mask=in_tile)


@triton.jit
def outputs(
    x_ptr, dt_ptr, A_ptr, b_ptr, c_ptr, d_ptr, entering_ptr, y_ptr,
    tokens, chunks, stride_xb, stride_xt, stride_db, stride_dt, stride_bb, stride_bt, stride_cb, stride_ct,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, HEADS: tl.constexpr,
    HAS_D: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """y of one chunk and of HEADS heads that share B and C, one after another."""
    bc = tl.program_id(0)
    b = (bc // chunks).to(tl.int64)
    c = bc % chunks
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    t = c * Q + q
    seen = t < tokens
    in_tn = seen[:, None] & (n < N)[None, :]
    group = (tl.program_id(1) * HEADS // SHARE) * N
    B = tl.load(b_ptr + b * stride_bb + t[:, None] * stride_bt + group + n[None, :], mask=in_tn, other=0.0)
    C = tl.load(c_ptr + b * stride_cb + t[:, None] * stride_ct + group + n[None, :], mask=in_tn, other=0.0)
    G = tl.dot(C, tl.trans(B), input_precision=PRECISION)
    for i in range(HEADS):
        h = tl.program_id(1) * HEADS + i
        dt = tl.load(dt_ptr + b * stride_db + t * stride_dt + h, mask=seen, other=0.0)
        start, segment = log_decay(dt, tl.load(A_ptr + h), Q, EXACT)
        M = (G * tl.exp2(segment) * dt[None, :]).to(C.dtype)
        for block in tl.static_range((P + BP - 1) // BP):
            p = block * BP + tl.arange(0, BP)
            in_tp = seen[:, None] & (p < P)[None, :]
            x = tl.load(x_ptr + b * stride_xb + t[:, None] * stride_xt + h * P + p[None, :], mask=in_tp, other=0.0)
            slot = ((b * chunks + c) * H + h) * P * N + p[:, None] * N + n[None, :]
            entering = tl.load(entering_ptr + slot, mask=(p < P)[:, None] & (n < N)[None, :], other=0.0)
            y = tl.dot(C, tl.trans(entering), input_precision=PRECISION) * tl.exp2(start)[:, None]
            y = tl.dot(M, x, y, input_precision=PRECISION)
            if HAS_D:
                y += tl.load(d_ptr + h) * x.to(tl.float32)
            out = y_ptr + ((b * tokens + t[:, None]) * H + h) * P + p[None, :]
            tl.store(out, y.to(y_ptr.dtype.element_ty), mask=in_tp)
