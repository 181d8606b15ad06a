"""A decoding step of a parallel hybrid's heads in Triton: what is small before attention is one kernel for both halves,
and what is small behind it another.

The first programs of the one turn queries and keys and fill the cache; behind them are the convolution's and the
scan's. The first programs of the other gate and norm Mamba-2's half, a row each; behind them each joins a head's parts,
and the one that is the last of its row norms the attention's half.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.adjacent import side_by_side
from hybrid_nas_kernels.attention.triton_step import Parts, attention_parts, join_head
from hybrid_nas_kernels.fuse_heads.triton_step import gated_norm, signed_norm
from hybrid_nas_kernels.linear_step import linear_step_parts
from hybrid_nas_kernels.mamba2.triton_step import BLOCK, conv_scan, conv_scan_parts
from hybrid_nas_kernels.parallel_step.reference import Mamba
from hybrid_nas_kernels.rope import Cached
from hybrid_nas_kernels.rope.triton_step import turn_and_cache, turn_parts

CHANNELS = BLOCK
"""Channels of a head of Mamba-2 a program."""
WARPS = 4
"""Of both kernels, at the 1B layers; with eight the second was slower."""


@triton.jit(do_not_specialize=["turns"])
def _turn_and_scan(
    turns, qk_ptr, v_ptr, cos_ptr, sin_ptr, q_ptr, keys_ptr, values_ptr,
    stride_qk, stride_v, stride_kb, stride_kh, stride_vb, stride_vh,
    xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
    stride_xbc, stride_dt, slot, joined_ptr,
    TURNED: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    BH: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, TURNS: tl.constexpr, COPIES: tl.constexpr,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    CHANNELS: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Some heads turned or cached in each of the first `turns` programs; then a block of channels of the scan each.
    No head of any row is joined yet, as `joined` says afterwards."""
    program = tl.program_id(0)
    if program < turns:
        tl.store(joined_ptr + program, 0, mask=program < turns // (TURNS + COPIES))  # as many as rows
        turn_and_cache(
            program, qk_ptr, v_ptr, cos_ptr, sin_ptr, q_ptr, keys_ptr, values_ptr,
            stride_qk, stride_v, stride_kb, stride_kh, stride_vb, stride_vh,
            TURNED, HEADS, KV, D, V, BH, BD, BV, TURNS, COPIES,
        )  # fmt: skip
    else:
        conv_scan(
            (program - turns) // BLOCKS, (program - turns) % BLOCKS,
            xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
            stride_xbc, stride_dt, slot, H, SHARE, P, N, CHANNELS, K, BK, BP, BN,
        )  # fmt: skip


def turn_and_scan(cached: Cached, mamba: Mamba) -> tuple[Tensor, Tensor, Tensor]:
    """`rope_and_cache` and `conv_scan_step` in one launch, and a zero for each row."""
    turn, scan = turn_parts(*cached), conv_scan_parts(*mamba, block=CHANNELS)
    rows, blocks = scan.grid
    joined = torch.empty(len(turn.q), dtype=torch.int32, device=turn.q.device)
    _turn_and_scan[(turn.programs + rows * blocks,)](
        turn.programs, *turn.arguments, *scan.arguments, joined, **turn.constants, **scan.constants, BLOCKS=blocks,
        num_warps=WARPS,
    )  # fmt: skip
    return turn.q, scan.y, joined


@triton.jit(do_not_specialize=["rows"])
def _join_and_norm(
    rows, parts_ptr, top_ptr, total_ptr, attended_ptr, splits, joined_ptr,
    y_ptr, z_ptr, y_gain_ptr, attended_gain_ptr, out_ptr, stride_z, eps, sign,
    HEADS: tl.constexpr, SHARE: tl.constexpr, V: tl.constexpr, BG: tl.constexpr, BV: tl.constexpr, BN: tl.constexpr,
    D: tl.constexpr, BD: tl.constexpr, BA: tl.constexpr,
):  # fmt: skip
    """Mamba-2's half of a row in each of the first `rows` programs; then a head each. No program waits for another: a
    row's heads count themselves, and the one that finds all others done has all of the row to norm."""
    program = tl.program_id(0).to(tl.int64)
    A: tl.constexpr = HEADS * V
    if program < rows:
        gated_norm(y_ptr + program * D, z_ptr + program * stride_z, y_gain_ptr, out_ptr + program * (D + A), eps, D, BD)
    else:
        head = program - rows
        row = head // HEADS
        join_head(head, parts_ptr, top_ptr, total_ptr, attended_ptr, splits, SHARE, V, BG, BV, BN)
        tl.debug_barrier()  # all of this program's threads have stored their part of the head before one of them counts
        before = tl.atomic_add(joined_ptr + row, 1, sem="acq_rel")
        tl.debug_barrier()
        if before == HEADS - 1:
            signed_norm(
                attended_ptr + row * A, attended_gain_ptr, out_ptr + row * (D + A) + D, eps, sign, A, BA, ".cg"
            )  # fmt: skip


def join_and_norm(
    found: Parts, joined: Tensor, y: Tensor, z: Tensor, norms: tuple[Tensor, Tensor], sign: float, eps: float
) -> Tensor:
    """The halves side by side (rows, d_ssm + values), gated and normed; y (rows, d_ssm) and the gains have no gaps,
    `joined` holds zeros, and afterwards does not."""
    z = z if z.stride(-1) == 1 else z.contiguous()
    (rows, d_ssm), (_, heads, value_dim) = y.shape, found.y.shape
    values = heads * value_dim
    out = torch.empty((rows, d_ssm + values), dtype=y.dtype, device=y.device)
    _join_and_norm[(rows + rows * heads,)](
        rows, *found.parts, found.y, found.splits, joined, y, z, *norms, out, z.stride(0), eps, float(sign),
        HEADS=heads, **found.constants, D=d_ssm, BD=triton.next_power_of_2(d_ssm), BA=triton.next_power_of_2(values),
        num_warps=WARPS,
    )  # fmt: skip
    return out


def parallel_step_triton(
    cached: Cached,
    mamba: Mamba,
    z: Tensor,
    norms: tuple[Tensor, Tensor],
    fusion: str,
    weights: tuple[Tensor, Tensor],
    eps: float,
) -> Tensor:
    """As `parallel_step`, for float32 and bfloat16; `conv` and `state` have no gaps. Weights that lie side by side are
    read where they are. The output, or parts of it, as `linear_step_parts` leaves them."""
    q, y, joined = turn_and_scan(cached, mamba)
    found = attention_parts(q, *cached[2:4])
    halves = join_and_norm(found, joined, y.flatten(1), z, norms, 1 if fusion == "add" else -1, eps)
    return linear_step_parts(halves, side_by_side(weights, dim=1))
