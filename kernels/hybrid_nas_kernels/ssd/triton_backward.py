"""The chunks of the scan going backward, after a `sweep` from the end: two kernels. README.md has the mathematics.

`inside` has what one chunk's tokens do to each other, and dx; `through` has what passes by way of states, and gathers
the gradients of B, C and the time steps. Both take the heads that share B and C in turn, so that sums over heads stay
in registers; between them goes the gradient of C B^T, summed over heads, chunk x chunk numbers.
"""

from __future__ import annotations

import triton
import triton.language as tl

from hybrid_nas_kernels.ssd.triton_forward import LOG2_E, to_end_decay


@triton.jit
def segments(dt, A, Q: tl.constexpr, EXACT: tl.constexpr):
    """The log decay over (j, i] as (j, i), -inf where i < j: `log_decay`'s second result, transposed."""
    q = tl.arange(0, Q)
    if EXACT:
        total = tl.cumsum(dt.to(tl.float64) * (A.to(tl.float64) * LOG2_E), 0)
        start = total.to(tl.float32)
        low = (total - start.to(tl.float64)).to(tl.float32)
        segment = (start[None, :] - start[:, None]) + (low[None, :] - low[:, None])
    else:
        start = tl.cumsum(dt * (A * LOG2_E), 0)
        segment = start[None, :] - start[:, None]
    return tl.where(q[:, None] <= q[None, :], segment, float("-inf"))


@triton.jit
def inside(
    dy_ptr, x_ptr, dt_ptr, A_ptr, b_ptr, c_ptr, d_ptr, leaving_ptr, dx_ptr, dg_ptr, step_ptr, decay_ptr, partial_ptr,
    tokens, chunks, stride_yb, stride_yt, stride_xb, stride_xt, stride_db, stride_dt,
    stride_bb, stride_bt, stride_cb, stride_ct,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, HEADS: tl.constexpr,
    HAS_D: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Of one chunk and HEADS heads: dx; the gradient of C B^T, summed over the heads; for each head, the part of each
    time step's gradient that comes from what its token writes inside, and that of its log decay from what is written
    before it and read at or after it inside; and the chunk's share of the gradient of D (the second H columns of
    `partial`)."""
    bc = tl.program_id(0)
    b = (bc // chunks).to(tl.int64)
    c = bc % chunks
    part = tl.program_id(1)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    t = c * Q + q
    seen = t < tokens
    in_tn = seen[:, None] & (n < N)[None, :]
    group = (part * HEADS // SHARE) * N
    B = tl.load(b_ptr + b * stride_bb + t[:, None] * stride_bt + group + n[None, :], mask=in_tn, other=0.0)
    C = tl.load(c_ptr + b * stride_cb + t[:, None] * stride_ct + group + n[None, :], mask=in_tn, other=0.0)
    # Everything chunk x chunk stands as (written at j, read at i): so it is a left factor as it comes, in registers.
    G = tl.dot(B, tl.trans(C), input_precision=PRECISION)
    reaches = (q[:, None] >= q[None, :]).to(B.dtype)
    dG = tl.zeros((Q, Q), tl.float32)
    for i in range(HEADS):
        h = part * HEADS + i
        A = tl.load(A_ptr + h)
        dt = tl.load(dt_ptr + b * stride_db + t * stride_dt + h, mask=seen, other=0.0)
        decay = tl.exp2(segments(dt, A, Q, EXACT))
        writes = to_end_decay(dt_ptr + b * stride_db + h, t, tokens, stride_dt, A, Q) * dt
        M = (G * decay * dt[:, None]).to(B.dtype)
        dM = tl.zeros((Q, Q), tl.float32)
        for block in tl.static_range((P + BP - 1) // BP):
            p = block * BP + tl.arange(0, BP)
            in_tp = seen[:, None] & (p < P)[None, :]
            x = tl.load(x_ptr + b * stride_xb + t[:, None] * stride_xt + h * P + p[None, :], mask=in_tp, other=0.0)
            dy = tl.load(dy_ptr + b * stride_yb + t[:, None] * stride_yt + h * P + p[None, :], mask=in_tp, other=0.0)
            slot = ((b * chunks + c) * H + h) * P * N + p[:, None] * N + n[None, :]
            leaving = tl.load(leaving_ptr + slot, mask=(p < P)[:, None] & (n < N)[None, :], other=0.0)
            dM = tl.dot(x, tl.trans(dy), dM, input_precision=PRECISION)
            dx = tl.dot(B, tl.trans(leaving), input_precision=PRECISION) * writes[:, None]
            dx = tl.dot(M, dy, dx, input_precision=PRECISION)
            if HAS_D:
                dx += tl.load(d_ptr + h) * dy.to(tl.float32)
            out = dx_ptr + ((b * tokens + t[:, None]) * H + h) * P + p[None, :]
            tl.store(out, dx.to(dx_ptr.dtype.element_ty), mask=in_tp)
        skip = tl.sum(tl.where(q[:, None] == q[None, :], dM, 0.0))
        dM *= decay
        dG += dM * dt[:, None]
        dM *= G
        step = tl.sum(dM, 1)
        crossing = tl.dot((dM * dt[:, None]).to(B.dtype), reaches, input_precision=PRECISION)
        crossing = tl.sum(tl.where(q[:, None] < q[None, :], crossing, 0.0), 0)
        tl.store(step_ptr + (b * tokens + t) * H + h, step, mask=seen)
        tl.store(decay_ptr + (b * tokens + t) * H + h, crossing, mask=seen)
        tl.store(partial_ptr + bc.to(tl.int64) * (2 * H) + H + h, skip)
    place = (bc.to(tl.int64) * tl.num_programs(1) + part) * Q * Q + q[:, None] * Q + q[None, :]
    tl.store(dg_ptr + place, dG.to(dg_ptr.dtype.element_ty))


@triton.jit
def through(
    dy_ptr, x_ptr, dt_ptr, A_ptr, b_ptr, c_ptr, entering_ptr, leaving_ptr, dg_ptr, step_ptr, decay_ptr,
    ddt_ptr, db_ptr, dc_ptr, partial_ptr,
    tokens, chunks, stride_yb, stride_yt, stride_xb, stride_xt, stride_db, stride_dt,
    stride_bb, stride_bt, stride_cb, stride_ct,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, HEADS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The other gradients of one chunk and HEADS heads: of B and C, summed over the heads, of the time steps, and the
    chunk's share of that of A (the first H columns of `partial`). The gradient of a log decay is summed over what it
    multiplies, not taken as a difference of large sums: see README.md."""
    bc = tl.program_id(0)
    b = (bc // chunks).to(tl.int64)
    c = bc % chunks
    part = tl.program_id(1)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    t = c * Q + q
    seen = t < tokens
    in_tn = seen[:, None] & (n < N)[None, :]
    group = (part * HEADS // SHARE) * N
    B = tl.load(b_ptr + b * stride_bb + t[:, None] * stride_bt + group + n[None, :], mask=in_tn, other=0.0)
    C = tl.load(c_ptr + b * stride_cb + t[:, None] * stride_ct + group + n[None, :], mask=in_tn, other=0.0)
    place = (bc.to(tl.int64) * tl.num_programs(1) + part) * Q * Q + q[:, None] * Q + q[None, :]
    dG = tl.load(dg_ptr + place)
    dC = tl.dot(tl.trans(dG), B, input_precision=PRECISION)
    dB = tl.dot(dG, C, input_precision=PRECISION)
    for i in range(HEADS):
        h = part * HEADS + i
        A = tl.load(A_ptr + h)
        dt = tl.load(dt_ptr + b * stride_db + t * stride_dt + h, mask=seen, other=0.0)
        log = dt * (A * LOG2_E)
        to_end = to_end_decay(dt_ptr + b * stride_db + h, t, tokens, stride_dt, A, Q)
        reads = tl.zeros((Q, BN), tl.float32)
        writes = tl.zeros((Q, BN), tl.float32)
        passing = 0.0
        for block in tl.static_range((P + BP - 1) // BP):
            p = block * BP + tl.arange(0, BP)
            in_tp = seen[:, None] & (p < P)[None, :]
            in_pn = (p < P)[:, None] & (n < N)[None, :]
            slot = ((b * chunks + c) * H + h) * P * N + p[:, None] * N + n[None, :]
            dy = tl.load(dy_ptr + b * stride_yb + t[:, None] * stride_yt + h * P + p[None, :], mask=in_tp, other=0.0)
            x = tl.load(x_ptr + b * stride_xb + t[:, None] * stride_xt + h * P + p[None, :], mask=in_tp, other=0.0)
            entering = tl.load(entering_ptr + slot, mask=in_pn, other=0.0)
            leaving = tl.load(leaving_ptr + slot, mask=in_pn, other=0.0)
            reads = tl.dot(dy, entering, reads, input_precision=PRECISION)
            writes = tl.dot(x, leaving, writes, input_precision=PRECISION)
            passing += tl.sum(entering.to(tl.float32) * leaving.to(tl.float32))
        reads *= tl.exp2(tl.cumsum(log, 0))[:, None]
        writes *= to_end[:, None]
        dC += reads
        dB += writes * dt[:, None]
        read = tl.sum(reads * C.to(tl.float32), 1)
        written = tl.sum(writes * B.to(tl.float32), 1)
        row = (b * tokens + t) * H + h
        # What is written before a token and read at or after it within the chunk; what enters and is read at or after
        # it; what is written before it and leaves; and what passes the chunk.
        da = tl.load(decay_ptr + row, mask=seen, other=0.0) + tl.cumsum(read, 0, reverse=True)
        leaves = written * dt
        da += tl.cumsum(leaves, 0) - leaves + passing * tl.exp2(tl.sum(log, 0))
        step = tl.load(step_ptr + row, mask=seen, other=0.0) + written
        tl.store(ddt_ptr + row, step + da * A, mask=seen)
        tl.store(partial_ptr + bc.to(tl.int64) * (2 * H) + h, tl.sum(tl.where(seen, da * dt, 0.0)))
    rows = ((b * tokens + t[:, None]) * (H // HEADS) + part) * N + n[None, :]
    tl.store(db_ptr + rows, dB.to(db_ptr.dtype.element_ty), mask=in_tn)
    tl.store(dc_ptr + rows, dC.to(dc_ptr.dtype.element_ty), mask=in_tn)
