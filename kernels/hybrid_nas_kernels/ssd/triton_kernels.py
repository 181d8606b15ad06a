"""State-space duality in chunks, on Triton kernels: two launches forward, three backward. README.md has the
mathematics.

A sweep over the chunks of one head keeps the state in registers and writes only what enters each chunk; everything
else is independent between chunks. Block sizes follow from the shapes by a rule, so nothing is tuned at run time.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from hybrid_nas_kernels.operations import operation
from hybrid_nas_kernels.ssd.triton_backward import inside, through
from hybrid_nas_kernels.ssd.triton_forward import outputs, sweep
from hybrid_nas_kernels.triton_sums import sum_rows_apart

PROGRAMS = 128
"""Programs to keep at least: one for about every multiprocessor of an H100."""


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


def _outputs_blocks(P: int, N: int) -> dict[str, int]:
    """With 16 x 32 numbers of the state at a time Triton 3.6 reads beyond the shared memory that it asked for, on an
    H100 (compute-sanitizer tells); with 32 x 32 it does not."""
    return {"BP": max(_block(P, 64), 32 if _block(N, 64) == 32 else 16), "num_warps": 4, "num_stages": 2}


def _inside_blocks(P: int) -> dict[str, int]:
    """As measured on an H100, head_dim x d_state 64 x 64 and 128 x 128; the next too."""
    return {"BP": _block(P, 64), "num_warps": 4, "num_stages": 1}


def _through_blocks(P: int, N: int) -> dict[str, int]:
    return {"BP": _block(P, 128), "num_warps": 4 if N <= 64 else 8, "num_stages": 2}


def heads_a_program(share: int, chunks_of_all: int) -> int:
    """How many heads of a group one program takes in turn: more save sums of B's and C's gradients over heads, fewer
    fill the device."""
    divisors = (d for d in range(share, 1, -1) if share % d == 0 and chunks_of_all * share // d >= PROGRAMS)
    return next(divisors, 1)


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
    sweep[(batch * H, triton.cdiv(P, BP), triton.cdiv(N, BN))](
        x, dt, A, B, A if state is None else state.contiguous(), entering, final, tokens, chunks,
        *x.stride()[:2], *dt.stride()[:2], *B.stride()[:2],
        **shape, BP=BP, BN=BN, HAS_FIRST=state is not None, BACKWARD=False, num_warps=4, num_stages=2,
    )  # fmt: skip
    heads = heads_a_program(H // groups, batch * chunks * groups)
    outputs[(batch * chunks, H // heads)](
        x, dt, A, B, C, A if D is None else D, entering, y, tokens, chunks,
        *x.stride()[:2], *dt.stride()[:2], *B.stride()[:2], *C.stride()[:2],
        **shape, **_outputs_blocks(P, N), BN=_block(N, 1 << 20), HEADS=heads, HAS_D=D is not None,
        EXACT=x.dtype == torch.float32,
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
    sweep[(batch * H, triton.cdiv(P, BP), triton.cdiv(N, BN))](
        dy, dt, A, C, A if dfinal is None else dfinal.contiguous(), leaving, dfirst, tokens, chunks,
        *dy.stride()[:2], *dt.stride()[:2], *C.stride()[:2],
        **shape, BP=BP, BN=BN, HAS_FIRST=dfinal is not None, BACKWARD=True, num_warps=4, num_stages=2,
    )  # fmt: skip
    BN = _block(N, 1 << 20)
    heads = heads_a_program(share, batch * chunks * groups)
    parts = H // heads
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dG = x.new_empty((batch * chunks, parts, Q, Q))
    ddt, step, decay = (torch.empty(dt.shape, dtype=torch.float32, device=x.device) for _ in range(3))
    dB, dC = (x.new_empty((batch, tokens, parts, N)) for _ in range(2))
    partial = x.new_empty((batch * chunks, 2 * H), dtype=torch.float32)
    strides = (*dy.stride()[:2], *x.stride()[:2], *dt.stride()[:2], *B.stride()[:2], *C.stride()[:2])
    inside[(batch * chunks, parts)](
        dy, x, dt, A, B, C, A if D is None else D, leaving, dx, dG, step, decay, partial, tokens, chunks,
        *strides, **shape, **_inside_blocks(P), BN=BN, HEADS=heads, HAS_D=D is not None,
        EXACT=x.dtype == torch.float32,
    )  # fmt: skip
    through[(batch * chunks, parts)](
        dy, x, dt, A, B, C, entering, leaving, dG, step, decay, ddt, dB, dC, partial, tokens, chunks,
        *strides, **shape, **_through_blocks(P, N), BN=BN, HEADS=heads,
    )  # fmt: skip
    if parts != groups:
        dB, dC = (v.view(batch, tokens, groups, -1, N).sum(3) for v in (dB, dC))
    dA, dD = sum_rows_apart(partial, H)
    return dx, ddt, dA, dB, dC, dA.new_empty(0) if D is None else dD, dfirst


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
