"""A decoding step of a parallel hybrid's heads in Triton: what is small before attention is one kernel for both halves.

Its first programs turn queries and keys and fill the cache; behind them are the convolution's and the scan's.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from hybrid_nas_kernels.adjacent import side_by_side
from hybrid_nas_kernels.attention.triton_step import attention_step_triton
from hybrid_nas_kernels.fuse_heads.triton_step import fuse_step
from hybrid_nas_kernels.mamba2.triton_step import BLOCK, conv_scan, conv_scan_parts
from hybrid_nas_kernels.parallel_step.reference import Mamba
from hybrid_nas_kernels.rope import Cached
from hybrid_nas_kernels.rope.triton_step import turn_and_cache, turn_parts

CHANNELS = BLOCK
"""Channels of a head of Mamba-2 a program."""
WARPS = 4


@triton.jit(do_not_specialize=["turns"])
def _turn_and_scan(
    turns, qk_ptr, v_ptr, cos_ptr, sin_ptr, q_ptr, keys_ptr, values_ptr,
    stride_qk, stride_v, stride_kb, stride_kh, stride_vb, stride_vh,
    xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
    stride_xbc, stride_dt, slot,
    TURNED: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    BH: tl.constexpr, BD: tl.constexpr, BV: tl.constexpr, TURNS: tl.constexpr, COPIES: tl.constexpr,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    CHANNELS: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Some heads turned or cached in each of the first `turns` programs; then a block of channels of the scan each."""
    program = tl.program_id(0)
    if program < turns:
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


def turn_and_scan(cached: Cached, mamba: Mamba) -> tuple[Tensor, Tensor]:
    """`rope_and_cache` and `conv_scan_step` in one launch."""
    turn, scan = turn_parts(*cached), conv_scan_parts(*mamba, block=CHANNELS)
    rows, blocks = scan.grid
    _turn_and_scan[(turn.programs + rows * blocks,)](
        turn.programs, *turn.arguments, *scan.arguments, **turn.constants, **scan.constants, BLOCKS=blocks,
        num_warps=WARPS,
    )  # fmt: skip
    return turn.q, scan.y


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
    read where they are."""
    q, y = turn_and_scan(cached, mamba)
    attended = attention_step_triton(q, *cached[2:4]).flatten(1)
    sign = 1 if fusion == "add" else -1
    return fuse_step(y.flatten(1), z, attended, norms, sign, side_by_side(weights, dim=1), eps)
