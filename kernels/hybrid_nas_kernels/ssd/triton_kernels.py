"""State-space duality in chunks, as Triton kernels: two launches forward, two backward. README.md has the mathematics.

A sweep over the chunks of one head keeps the state in registers and writes only what enters each chunk; everything
else is independent between chunks. Block sizes follow from the shapes by a rule, so nothing is tuned at run time.

Names: Q tokens a chunk, H heads, P head_dim, N d_state. Logarithms are to the base 2.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.triton_sums import rows_of, sum_rows

LOG2_E = tl.constexpr(1.4426950408889634)
BLOCK, WARPS = 32, 4
"""Of `_gradients`, the fastest of those measured on an H100 at head_dim x d_state 64 x 64 and 128 x 128."""


def ssd_triton(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    initial_state: Tensor | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """As `ssd`, for float32 and bfloat16. Differentiable once. bfloat16 inputs are multiplied as such, summed in
    float32; dt, A and D stay in float32."""
    size = chunk_tokens(x.shape[1], B.shape[-1], x.dtype) if chunk is None else max(16, triton.next_power_of_2(chunk))
    dt, A = dt.float(), A.float()
    D = None if D is None else D.float()
    state = None if initial_state is None else initial_state.float()
    y, final, _ = torch.ops.hybrid_nas.ssd(x, dt, A, B.to(x.dtype), C.to(x.dtype), D, state, size)
    return y, final


def chunk_tokens(tokens: int, d_state: int, dtype: torch.dtype) -> int:
    """Tokens a chunk: 64, less where the sequence is shorter or the tiles would not fit."""
    most = 64 if d_state <= 128 and dtype != torch.float32 else 32
    return int(max(16, min(most, triton.next_power_of_2(tokens))))


@triton.jit
def _sweep(
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
            weight = dt * _to_end(dt_ptr + b * stride_db + h, t, tokens, stride_dt, A, Q)
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
def _log_decay(dt, A, Q: tl.constexpr, EXACT: tl.constexpr):
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
def _to_end(dt_ptr, t, tokens, stride_dt, A, Q: tl.constexpr):
    """The decay from each token to the chunk's end: that of all later tokens, summed from the end."""
    later = tl.load(dt_ptr + (t + 1) * stride_dt, mask=(t + 1 < tokens) & (tl.arange(0, Q) < Q - 1), other=0.0)
    return tl.exp2(tl.cumsum(later * (A * LOG2_E), 0, reverse=True))


@triton.jit
def _outputs(
    x_ptr, dt_ptr, A_ptr, b_ptr, c_ptr, d_ptr, entering_ptr, y_ptr,
    tokens, chunks, stride_xb, stride_xt, stride_db, stride_dt, stride_bb, stride_bt, stride_cb, stride_ct,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    HAS_D: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    bc = tl.program_id(0)
    b = (bc // chunks).to(tl.int64)
    c = bc % chunks
    h = tl.program_id(1)
    p = tl.program_id(2) * BP + tl.arange(0, BP)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    t = c * Q + q
    seen = t < tokens
    in_p = p < P
    in_n = n < N
    dt = tl.load(dt_ptr + b * stride_db + t * stride_dt + h, mask=seen, other=0.0)
    start, segment = _log_decay(dt, tl.load(A_ptr + h), Q, EXACT)
    group = (h // SHARE) * N
    B = tl.load(
        b_ptr + b * stride_bb + t[:, None] * stride_bt + group + n[None, :],
        mask=seen[:, None] & in_n[None, :],
        other=0.0,
    )
    C = tl.load(
        c_ptr + b * stride_cb + t[:, None] * stride_ct + group + n[None, :],
        mask=seen[:, None] & in_n[None, :],
        other=0.0,
    )
    x = tl.load(
        x_ptr + b * stride_xb + t[:, None] * stride_xt + h * P + p[None, :],
        mask=seen[:, None] & in_p[None, :],
        other=0.0,
    )
    slot = ((b * chunks + c) * H + h) * P * N
    entering = tl.load(entering_ptr + slot + p[None, :] * N + n[:, None], mask=in_n[:, None] & in_p[None, :], other=0.0)
    M = tl.dot(C, tl.trans(B), input_precision=PRECISION) * tl.exp2(segment) * dt[None, :]
    y = tl.dot(C, entering, input_precision=PRECISION) * tl.exp2(start)[:, None]
    y += tl.dot(M.to(x.dtype), x, input_precision=PRECISION)
    if HAS_D:
        y += tl.load(d_ptr + h) * x.to(tl.float32)
    out = y_ptr + ((b * tokens + t[:, None]) * H + h) * P + p[None, :]
    tl.store(out, y.to(y_ptr.dtype.element_ty), mask=seen[:, None] & in_p[None, :])


@triton.jit
def _input_gradients(
    dy_ptr, x_ptr, dt_ptr, A_ptr, b_ptr, c_ptr, d_ptr, entering_ptr, leaving_ptr, dx_ptr, read_ptr, written_ptr,
    passing_ptr, tokens, chunks, stride_yb, stride_yt, stride_xb, stride_xt, stride_db, stride_dt,
    stride_bb, stride_bt, stride_cb, stride_ct,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    HAS_D: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """dx of one chunk and head: `_outputs` with the arrows turned round. And the gradients of log decays that pass
    through states: of what each token reads of the entering state, of what it writes to the leaving one, and of what
    passes the chunk."""
    bc = tl.program_id(0)
    b = (bc // chunks).to(tl.int64)
    c = bc % chunks
    h = tl.program_id(1)
    n = tl.arange(0, BN)
    q = tl.arange(0, Q)
    t = c * Q + q
    seen = t < tokens
    in_tn = seen[:, None] & (n < N)[None, :]
    A = tl.load(A_ptr + h)
    dt = tl.load(dt_ptr + b * stride_db + t * stride_dt + h, mask=seen, other=0.0)
    start, segment = _log_decay(dt, A, Q, EXACT)
    to_end = _to_end(dt_ptr + b * stride_db + h, t, tokens, stride_dt, A, Q)
    group = (h // SHARE) * N
    B = tl.load(b_ptr + b * stride_bb + t[:, None] * stride_bt + group + n[None, :], mask=in_tn, other=0.0)
    C = tl.load(c_ptr + b * stride_cb + t[:, None] * stride_ct + group + n[None, :], mask=in_tn, other=0.0)
    M = (tl.dot(C, tl.trans(B), input_precision=PRECISION) * tl.exp2(segment)).to(B.dtype)
    read = tl.zeros((Q,), tl.float32)
    written = tl.zeros((Q,), tl.float32)
    passing = 0.0
    for block in tl.static_range((P + BP - 1) // BP):
        p = block * BP + tl.arange(0, BP)
        in_tp = seen[:, None] & (p < P)[None, :]
        in_np = (n < N)[:, None] & (p < P)[None, :]
        dy = tl.load(dy_ptr + b * stride_yb + t[:, None] * stride_yt + h * P + p[None, :], mask=in_tp, other=0.0)
        x = tl.load(x_ptr + b * stride_xb + t[:, None] * stride_xt + h * P + p[None, :], mask=in_tp, other=0.0)
        slot = ((b * chunks + c) * H + h) * P * N + p[None, :] * N + n[:, None]
        entering = tl.load(entering_ptr + slot, mask=in_np, other=0.0)
        leaving = tl.load(leaving_ptr + slot, mask=in_np, other=0.0)
        passing += tl.sum(entering.to(tl.float32) * leaving.to(tl.float32))
        read += tl.sum(tl.dot(C, entering, input_precision=PRECISION) * dy.to(tl.float32), 1)
        dx = tl.dot(B, leaving, input_precision=PRECISION) * to_end[:, None]
        written += tl.sum(dx * x.to(tl.float32), 1)
        dx += tl.dot(tl.trans(M), dy, input_precision=PRECISION)
        dx *= dt[:, None]
        if HAS_D:
            dx += tl.load(d_ptr + h) * dy.to(tl.float32)
        out = dx_ptr + ((b * tokens + t[:, None]) * H + h) * P + p[None, :]
        tl.store(out, dx.to(dx_ptr.dtype.element_ty), mask=in_tp)
    tl.store(read_ptr + (b * tokens + t) * H + h, read * tl.exp2(start), mask=seen)
    tl.store(written_ptr + (b * tokens + t) * H + h, written, mask=seen)
    tl.store(passing_ptr + bc.to(tl.int64) * H + h, passing * tl.exp2(tl.sum(dt * (A * LOG2_E), 0)))


@triton.jit
def _gradients(
    dy_ptr, x_ptr, dt_ptr, A_ptr, b_ptr, c_ptr, entering_ptr, leaving_ptr, read_ptr, written_ptr, passing_ptr,
    ddt_ptr, db_ptr, dc_ptr, partial_ptr,
    tokens, chunks, stride_yb, stride_yt, stride_xb, stride_xt, stride_db, stride_dt,
    stride_bb, stride_bt, stride_cb, stride_ct,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    Q: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr, HEADS: tl.constexpr,
    PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """The other gradients of one chunk, for HEADS heads that share B and C, summed over them. `partial` gets each
    chunk's share of the gradients of A (first H columns) and D. The gradient of a log decay is summed over what it
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
    dB = tl.zeros((Q, BN), tl.float32)
    dC = tl.zeros((Q, BN), tl.float32)
    for i in range(HEADS):
        h = part * HEADS + i
        A = tl.load(A_ptr + h)
        dt = tl.load(dt_ptr + b * stride_db + t * stride_dt + h, mask=seen, other=0.0)
        start, segment = _log_decay(dt, A, Q, EXACT)
        from_start = tl.exp2(start)
        writes = dt * _to_end(dt_ptr + b * stride_db + h, t, tokens, stride_dt, A, Q)
        dM = tl.zeros((Q, Q), tl.float32)
        for block in tl.static_range((P + BP - 1) // BP):
            p = block * BP + tl.arange(0, BP)
            in_tp = seen[:, None] & (p < P)[None, :]
            in_pn = (p < P)[:, None] & (n < N)[None, :]
            x = tl.load(x_ptr + b * stride_xb + t[:, None] * stride_xt + h * P + p[None, :], mask=in_tp, other=0.0)
            dy = tl.load(dy_ptr + b * stride_yb + t[:, None] * stride_yt + h * P + p[None, :], mask=in_tp, other=0.0)
            dM = tl.dot(dy, tl.trans(x), dM, input_precision=PRECISION)
            slot = ((b * chunks + c) * H + h) * P * N + p[:, None] * N + n[None, :]
            entering = tl.load(entering_ptr + slot, mask=in_pn, other=0.0)
            dy = (dy.to(tl.float32) * from_start[:, None]).to(dy.dtype)
            dC = tl.dot(dy, entering, dC, input_precision=PRECISION)
            leaving = tl.load(leaving_ptr + slot, mask=in_pn, other=0.0)
            x = (x.to(tl.float32) * writes[:, None]).to(x.dtype)
            dB = tl.dot(x, leaving, dB, input_precision=PRECISION)
        skip = tl.sum(tl.where(q[:, None] == q[None, :], dM, 0.0))
        dM *= tl.exp2(segment)
        dG = (dM * dt[None, :]).to(B.dtype)
        dC = tl.dot(dG, B, dC, input_precision=PRECISION)
        dB = tl.dot(tl.trans(dG), C, dB, input_precision=PRECISION)
        dM *= tl.dot(C, tl.trans(B), input_precision=PRECISION)
        written = tl.load(written_ptr + (b * tokens + t) * H + h, mask=seen, other=0.0)
        read = tl.load(read_ptr + (b * tokens + t) * H + h, mask=seen, other=0.0)
        step = tl.sum(dM, 0) + written
        # What passes the chunk, what enters it and is read at or after a token, what is written before it and leaves,
        # and what is written before it and read at or after it within the chunk.
        before = (q[:, None] < q[None, :]).to(B.dtype)
        crossing = tl.dot((dM * dt[None, :]).to(B.dtype), before, input_precision=PRECISION)
        da = tl.sum(tl.where(q[:, None] >= q[None, :], crossing, 0.0), 0) + tl.cumsum(read, 0, reverse=True)
        leaves = written * dt
        da += tl.cumsum(leaves, 0) - leaves
        da += tl.load(passing_ptr + bc.to(tl.int64) * H + h)
        tl.store(ddt_ptr + (b * tokens + t) * H + h, step + da * A, mask=seen)
        tl.store(partial_ptr + bc.to(tl.int64) * (2 * H) + h, tl.sum(tl.where(seen, da * dt, 0.0)))
        tl.store(partial_ptr + bc.to(tl.int64) * (2 * H) + H + h, skip)
    rows = ((b * tokens + t[:, None]) * (H // HEADS) + part) * N + n[None, :]
    tl.store(db_ptr + rows, dB.to(db_ptr.dtype.element_ty), mask=in_tn)
    tl.store(dc_ptr + rows, dC.to(dc_ptr.dtype.element_ty), mask=in_tn)


def _block(size: int, most: int) -> int:
    return int(max(16, min(most, triton.next_power_of_2(size))))


def _packed(value: Tensor) -> Tensor:
    """Its last two dimensions without gaps; batch and token may have any stride."""
    last, size = value.stride(-1), value.shape[-1]
    return value if last == 1 and value.stride(-2) == size else value.contiguous()


def _precision(dtype: torch.dtype) -> str:
    return "ieee" if dtype == torch.float32 else "tf32"


def _sweep_blocks(programs: int, P: int, N: int) -> tuple[int, int]:
    """Tiles of the state, smaller where there are few heads and sequences to fill the device."""
    most = 64 if programs >= 96 else 32
    return _block(P, most), _block(N, most)


def heads_a_program(share: int, chunks_of_all: int) -> int:
    """How many heads of a group one program takes in turn: more save sums of B's and C's gradients over heads, fewer
    fill the device."""
    heads = 1
    while share % (2 * heads) == 0 and heads < 4 and chunks_of_all * share // (2 * heads) >= 512:
        heads *= 2
    return heads


@operation(
    "ssd(Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? state, int Q) -> (Tensor, "
    "Tensor, Tensor)"
)
def _ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None, Q: int
) -> tuple[Tensor, Tensor, Tensor]:
    batch, tokens, H, P = x.shape
    groups, N = B.shape[2:]
    x, B, C = _packed(x), _packed(B), _packed(C)
    dt = dt if dt.stride(-1) == 1 else dt.contiguous()
    chunks = triton.cdiv(tokens, Q)
    entering = x.new_empty(batch, chunks, H, P, N)
    final = torch.empty((batch, H, P, N), dtype=torch.float32, device=x.device)
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    shape: dict[str, Any] = {"H": H, "SHARE": H // groups, "P": P, "N": N, "Q": Q, "PRECISION": _precision(x.dtype)}
    BP, BN = _sweep_blocks(batch * H, P, N)
    _sweep[(batch * H, triton.cdiv(P, BP), triton.cdiv(N, BN))](
        x, dt, A, B, A if state is None else state.contiguous(), entering, final, tokens, chunks,
        *x.stride()[:2], *dt.stride()[:2], *B.stride()[:2],
        **shape, BP=BP, BN=BN, HAS_FIRST=state is not None, BACKWARD=False, num_warps=4, num_stages=2,
    )  # fmt: skip
    BP, exact = _block(P, 64), x.dtype == torch.float32
    _outputs[(batch * chunks, H, triton.cdiv(P, BP))](
        x, dt, A, B, C, A if D is None else D, entering, y, tokens, chunks,
        *x.stride()[:2], *dt.stride()[:2], *B.stride()[:2], *C.stride()[:2],
        **shape, BP=BP, BN=_block(N, 1 << 20), HAS_D=D is not None, EXACT=exact, num_warps=4, num_stages=1,
    )  # fmt: skip
    return y, final, entering


@_ssd.register_fake
def _(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, state: Any, Q: int) -> tuple[Tensor, ...]:
    batch, tokens, H, P = x.shape
    N = B.shape[-1]
    return (
        x.new_empty(x.shape),
        x.new_empty((batch, H, P, N), dtype=torch.float32),
        x.new_empty(batch, (tokens + Q - 1) // Q, H, P, N),
    )


@operation(
    "ssd_backward(Tensor dy, Tensor? dfinal, Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? "
    "D, Tensor entering, int Q) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _ssd_backward(
    dy: Tensor, dfinal: Tensor | None, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
    entering: Tensor, Q: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    batch, tokens, H, P = x.shape
    groups, N = B.shape[2:]
    share = H // groups
    dy, x, B, C = _packed(dy), _packed(x), _packed(B), _packed(C)
    dt = dt if dt.stride(-1) == 1 else dt.contiguous()
    chunks = triton.cdiv(tokens, Q)
    shape: dict[str, Any] = {"H": H, "SHARE": share, "P": P, "N": N, "Q": Q, "PRECISION": _precision(x.dtype)}
    leaving, dfirst = torch.empty_like(entering), torch.empty((batch, H, P, N), dtype=torch.float32, device=x.device)
    BP, BN = _sweep_blocks(batch * H, P, N)
    _sweep[(batch * H, triton.cdiv(P, BP), triton.cdiv(N, BN))](
        dy, dt, A, C, A if dfinal is None else dfinal.contiguous(), leaving, dfirst, tokens, chunks,
        *dy.stride()[:2], *dt.stride()[:2], *C.stride()[:2],
        **shape, BP=BP, BN=BN, HAS_FIRST=dfinal is not None, BACKWARD=True, num_warps=4, num_stages=2,
    )  # fmt: skip
    BP, BN, exact = _block(P, 64), _block(N, 1 << 20), x.dtype == torch.float32
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    read, written = (x.new_empty((batch, tokens, H), dtype=torch.float32) for _ in range(2))
    passing = x.new_empty((batch * chunks, H), dtype=torch.float32)
    strides = (*dy.stride()[:2], *x.stride()[:2], *dt.stride()[:2], *B.stride()[:2], *C.stride()[:2])
    _input_gradients[(batch * chunks, H)](
        dy, x, dt, A, B, C, A if D is None else D, entering, leaving, dx, read, written, passing, tokens, chunks,
        *strides, **shape, BP=BP, BN=BN, HAS_D=D is not None, EXACT=exact, num_warps=4, num_stages=1,
    )  # fmt: skip
    heads = heads_a_program(share, batch * chunks * groups)
    parts = H // heads
    ddt = torch.empty(dt.shape, dtype=dt.dtype, device=x.device)
    dB, dC = (x.new_empty((batch, tokens, parts, N)) for _ in range(2))
    partial = x.new_empty((batch * chunks, 2 * H), dtype=torch.float32)
    _gradients[(batch * chunks, parts)](
        dy, x, dt, A, B, C, entering, leaving, read, written, passing, ddt, dB, dC, partial, tokens, chunks,
        *strides, **shape, BP=min(BP, BLOCK), BN=BN, HEADS=heads, EXACT=exact, num_warps=WARPS, num_stages=1,
    )  # fmt: skip
    if parts != groups:
        dB, dC = (v.view(batch, tokens, groups, -1, N).sum(3) for v in (dB, dC))
    dA, dD = sum_rows(partial).split(H)
    return dx, ddt, dA.clone(), dB, dC, dA.new_empty(0) if D is None else dD.clone(), dfirst


@_ssd_backward.register_fake
def _(
    dy: Tensor, dfinal: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Any, entering: Tensor, Q: int
) -> tuple[Tensor, ...]:
    batch, _, H, P = x.shape
    return (
        x.new_empty(x.shape),
        dt.new_empty(dt.shape),
        A.new_empty(A.shape),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        A.new_empty(0) if D is None else A.new_empty(A.shape),
        A.new_empty((batch, H, P, B.shape[-1])),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, dt, A, B, C, D, state, Q = inputs
    ctx.save_for_backward(x, dt, A, B, C, D, output[2])
    ctx.Q, ctx.has_state = Q, state is not None
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, dt, A, B, C, D, entering = ctx.saved_tensors
    dy = torch.zeros_like(x) if dy is None else dy
    dx, ddt, dA, dB, dC, dD, dfirst = torch.ops.hybrid_nas.ssd_backward(dy, dfinal, x, dt, A, B, C, D, entering, ctx.Q)
    return dx, ddt, dA, dB, dC, None if D is None else dD, dfirst if ctx.has_state else None, None


_ssd.register_autograd(_backward, setup_context=_save)


@triton.jit
def _softplus(dt_ptr, bias_ptr, out_ptr, rows, stride, H: tl.constexpr, BH: tl.constexpr, BR: tl.constexpr):
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    h = tl.arange(0, BH)
    mask = (r < rows)[:, None] & (h < H)[None, :]
    x = tl.load(dt_ptr + r[:, None] * stride + h[None, :], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)[None, :]
    y = tl.maximum(x, 0.0) + tl.log(1 + tl.exp(-tl.abs(x)))
    tl.store(out_ptr + r[:, None] * H + h[None, :], y, mask=mask)


@triton.jit
def _softplus_backward(
    dout_ptr, dt_ptr, bias_ptr, ddt_ptr, partial_ptr, rows, stride, H: tl.constexpr, BH: tl.constexpr, BR: tl.constexpr
):
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    h = tl.arange(0, BH)
    mask = (r < rows)[:, None] & (h < H)[None, :]
    x = tl.load(dt_ptr + r[:, None] * stride + h[None, :], mask=mask, other=0.0).to(tl.float32)
    x += tl.load(bias_ptr + h, mask=h < H, other=0.0).to(tl.float32)[None, :]
    dout = tl.load(dout_ptr + r[:, None] * H + h[None, :], mask=mask, other=0.0)
    dx = dout * tl.sigmoid(x)
    tl.store(ddt_ptr + r[:, None] * H + h[None, :], dx.to(ddt_ptr.dtype.element_ty), mask=mask)
    tl.store(partial_ptr + tl.program_id(0) * H + h, tl.sum(dx, 0), mask=h < H)


def time_step_triton(dt: Tensor, bias: Tensor) -> Tensor:
    """As `time_step`, in float32."""
    return torch.ops.hybrid_nas.time_step(dt, bias)  # type: ignore[no-any-return]


def _softplus_blocks(heads: int, rows: int) -> dict[str, int]:
    BH = triton.next_power_of_2(heads)
    return {"H": heads, "BH": BH, "BR": max(1, min(4096 // BH, triton.next_power_of_2(rows)))}


@operation("time_step(Tensor dt, Tensor bias) -> Tensor")
def _time_step(dt: Tensor, bias: Tensor) -> Tensor:
    flat = rows_of(dt)
    rows, heads = flat.shape
    out = torch.empty(dt.shape, dtype=torch.float32, device=dt.device)
    blocks = _softplus_blocks(heads, rows)
    _softplus[(triton.cdiv(rows, blocks["BR"]),)](flat, bias, out, rows, flat.stride(0), **blocks)
    return out


@_time_step.register_fake
def _(dt: Tensor, bias: Tensor) -> Tensor:
    return dt.new_empty(dt.shape, dtype=torch.float32)


@operation("time_step_backward(Tensor dout, Tensor dt, Tensor bias) -> (Tensor, Tensor)")
def _time_step_backward(dout: Tensor, dt: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    flat = rows_of(dt)
    rows, heads = flat.shape
    blocks = _softplus_blocks(heads, rows)
    programs = triton.cdiv(rows, blocks["BR"])
    ddt = torch.empty(dt.shape, dtype=dt.dtype, device=dt.device)
    partial = torch.empty((programs, heads), dtype=torch.float32, device=dt.device)
    _softplus_backward[(programs,)](dout.contiguous(), flat, bias, ddt, partial, rows, flat.stride(0), **blocks)
    return ddt, sum_rows(partial, bias.dtype)


@_time_step_backward.register_fake
def _(dout: Tensor, dt: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return dt.new_empty(dt.shape), bias.new_empty(bias.shape)


def _time_step_save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _time_step_gradient(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor]:
    ddt, dbias = torch.ops.hybrid_nas.time_step_backward(dout, *ctx.saved_tensors)
    return ddt, dbias


_time_step.register_autograd(_time_step_gradient, setup_context=_time_step_save)
