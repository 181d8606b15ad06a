"""A decoding step of a parallel hybrid's heads as two Triton kernels and a product.

The first kernel's programs are attention's parts, which read the cache, and behind them the convolution and the scan,
which read little and are done meanwhile. The second joins the parts and makes both norms.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.adjacent import side_by_side
from hybrid_nas_kernels.attention.triton_step import Parts, attend_part, attention_join, attention_parts, joined
from hybrid_nas_kernels.fuse_heads.triton_step import fuse_step, gate_and_norm, normed
from hybrid_nas_kernels.mamba2.triton_step import conv_scan, conv_scan_parts
from hybrid_nas_kernels.parallel_step.reference import Mamba

CHANNELS = 8
"""Channels of a head a warp of the scan."""
TILE = 32_768
"""Numbers of attention's parts that one program joins at a time."""
JOINED = 2 * TILE
"""Numbers of a row's parts, in powers of two, up to which one program joins them; more: a program a head, and a launch
more."""


@triton.jit(do_not_specialize=["parts", "groups", "splits", "slots", "slot"])
def _parts_and_scan(
    parts, groups, splits,
    q_ptr, k_ptr, v_ptr, out_ptr, top_ptr, total_ptr, slots, part, scale,
    stride_q, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
    stride_xbc, stride_dt, slot,
    ALIGN_K: tl.constexpr, ALIGN_V: tl.constexpr,
    HEADS: tl.constexpr, KV: tl.constexpr, D: tl.constexpr, V: tl.constexpr,
    BG: tl.constexpr, BS: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BV: tl.constexpr,
    PRECISION: tl.constexpr,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    CHANNELS: tl.constexpr, K: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """Attention's parts first, which take longest; then a block of channels of the scan each."""
    program = tl.program_id(0)
    if program < parts:
        attend_part(
            program % groups, program // groups, splits,
            q_ptr, k_ptr, v_ptr, out_ptr, top_ptr, total_ptr, slots, part, scale,
            stride_q, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
            ALIGN_K, ALIGN_V, HEADS, KV, D, V, BG, BS, BD, BE, BV, PRECISION,
        )  # fmt: skip
    else:
        conv_scan(
            (program - parts) // BLOCKS, (program - parts) % BLOCKS,
            xbc_ptr, dt_ptr, ring_ptr, state_ptr, weight_ptr, bias_ptr, A_ptr, d_ptr, dt_bias_ptr, y_ptr,
            stride_xbc, stride_dt, slot, H, SHARE, P, N, CHANNELS, K, BK, BP, BN,
        )  # fmt: skip


@triton.jit(do_not_specialize=["splits"])
def _join_and_norms(
    part_ptr, top_ptr, total_ptr, splits, y_ptr, z_ptr, y_gain_ptr, attended_gain_ptr, out_ptr, stride_z, eps, sign,
    D: tl.constexpr, HEADS: tl.constexpr, KV: tl.constexpr, V: tl.constexpr,
    BG: tl.constexpr, BV: tl.constexpr, BN: tl.constexpr, BH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program a row and half: y silu(z), or all of attention's heads, over its root mean square, times its gain."""
    row = tl.program_id(0).to(tl.int64)
    out = out_ptr + row * (D + HEADS * V)
    if tl.program_id(1) == 0:
        h = tl.arange(0, BH)
        v = tl.arange(0, BV)
        i = h[:, None] * V + v[None, :]
        mask = (h < HEADS)[:, None] & (v < V)[None, :]
        gain = tl.load(attended_gain_ptr + i, mask=mask, other=0.0).to(tl.float32)
        value = joined(part_ptr, top_ptr, total_ptr, row * HEADS, splits, HEADS, HEADS // KV, V, BG, BV, BN, BH)
        value = value.to(out_ptr.dtype.element_ty).to(tl.float32)  # as a step of attention alone would hand it on
        tl.store(out + D + i, normed(value, gain, HEADS * V, eps, sign).to(out_ptr.dtype.element_ty), mask=mask)
    else:
        gate_and_norm(y_ptr + row * D, z_ptr + row * stride_z, y_gain_ptr, out, eps, D, BLOCK)


def parallel_step_triton(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    mamba: Mamba,
    z: Tensor,
    norms: tuple[Tensor, Tensor],
    fusion: str,
    weights: tuple[Tensor, Tensor],
    eps: float,
) -> Tensor:
    """As `parallel_step`, for float32 and bfloat16; `conv` and `state` have no gaps. Weights that lie side by side are
    read where they are."""
    parts = attention_parts(q, keys, values)
    groups = len(parts.results[0])
    scan = conv_scan_parts(*mamba, block=CHANNELS * parts.warps)
    programs, blocks = groups * parts.splits, scan.grid[1]
    _parts_and_scan[(programs + scan.grid[0] * blocks,)](
        programs, groups, parts.splits, *parts.arguments, *scan.arguments,
        **parts.constants, **scan.constants, BLOCKS=blocks, num_warps=parts.warps,
    )  # fmt: skip
    sign, whole, y = 1 if fusion == "add" else -1, side_by_side(weights, dim=1), scan.y.flatten(1)
    if parts.splits * triton.next_power_of_2(q.shape[1]) * parts.constants["BV"] > JOINED:
        return fuse_step(y, z, attention_join(parts, q).flatten(1), norms, sign, whole, eps)
    return F.linear(_joined_and_normed(parts, q, y, z, norms, sign, eps), whole)


def _joined_and_normed(
    parts: Parts, q: Tensor, y: Tensor, z: Tensor, norms: tuple[Tensor, Tensor], sign: int, eps: float
) -> Tensor:
    """Both halves side by side (batch, d_ssm + values), as the product reads them."""
    z = z if z.stride(-1) == 1 else z.contiguous()
    (batch, d_ssm), c = y.shape, parts.constants
    heads = q.shape[1]
    out = torch.empty((batch, d_ssm + heads * c["V"]), dtype=y.dtype, device=y.device)
    BH, BLOCK = triton.next_power_of_2(heads), triton.next_power_of_2(d_ssm)
    BN = max(1, min(triton.next_power_of_2(parts.splits), TILE // (BH * c["BV"])))
    _join_and_norms[(batch, 2)](
        *parts.results, parts.splits, y, z, *norms, out, z.stride(0), eps, float(sign),
        D=d_ssm, HEADS=heads, KV=c["KV"], V=c["V"], BG=c["BG"], BV=c["BV"], BN=BN, BH=BH, BLOCK=BLOCK,
        num_warps=16 if BN * BH * c["BV"] > 8192 else 8 if BLOCK > 1024 else 4,
    )  # fmt: skip
    return out
