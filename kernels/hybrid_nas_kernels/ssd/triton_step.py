"""The decoding step of the scan as one Triton kernel: the state is read and written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _step(
    x_ptr, dt_ptr, A_ptr, b_ptr, c_ptr, d_ptr, bias_ptr, state_ptr, y_ptr, stride_x, stride_dt, stride_b, stride_c,
    H: tl.constexpr, SHARE: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    BP: tl.constexpr, BN: tl.constexpr, HAS_D: tl.constexpr, AS_WEIGHTS: tl.constexpr,
):  # fmt: skip
    bh = tl.program_id(0).to(tl.int64)
    b = bh // H
    h = bh % H
    p = tl.program_id(1) * BP + tl.arange(0, BP)
    n = tl.arange(0, BN)
    x = tl.load(x_ptr + b * stride_x + h * P + p, mask=p < P, other=0.0).to(tl.float32)
    dt = tl.load(dt_ptr + b * stride_dt + h).to(tl.float32)
    A = tl.load(A_ptr + h).to(tl.float32)
    if AS_WEIGHTS:
        dt += tl.load(bias_ptr + h).to(tl.float32)
        dt = tl.maximum(dt, 0.0) + tl.log(1 + tl.exp(-tl.abs(dt)))
        A = -tl.exp(A)
    group = (h // SHARE) * N
    B = tl.load(b_ptr + b * stride_b + group + n, mask=n < N, other=0.0).to(tl.float32)
    C = tl.load(c_ptr + b * stride_c + group + n, mask=n < N, other=0.0).to(tl.float32)
    place = state_ptr + (bh * P + p[:, None]) * N + n[None, :]
    mask = (p < P)[:, None] & (n < N)[None, :]
    state = tl.load(place, mask=mask, other=0.0).to(tl.float32)
    state = state * tl.exp(dt * A) + (dt * x)[:, None] * B[None, :]
    tl.store(place, state.to(state_ptr.dtype.element_ty), mask=mask)
    y = tl.sum(state * C[None, :], 1)
    if HAS_D:
        y += tl.load(d_ptr + h).to(tl.float32) * x
    tl.store(y_ptr + bh * P + p, y.to(y_ptr.dtype.element_ty), mask=p < P)


def ssd_step_triton(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor, bias: Tensor | None = None
) -> Tensor:
    """As `ssd_step`; `state` has no gaps."""
    batch, H, P = x.shape
    groups, N = B.shape[1:]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    x, B, C = (v if v.stride(-1) == 1 and v.stride(-2) == v.shape[-1] else v.contiguous() for v in (x, B, C))
    dt = dt if dt.stride(-1) == 1 else dt.contiguous()
    BP = min(16, triton.next_power_of_2(P))
    _step[(batch * H, triton.cdiv(P, BP))](
        x, dt, A, B, C, A if D is None else D, A if bias is None else bias, state, y,
        x.stride(0), dt.stride(0), B.stride(0), C.stride(0),
        H=H, SHARE=H // groups, P=P, N=N, BP=BP, BN=triton.next_power_of_2(N), HAS_D=D is not None,
        AS_WEIGHTS=bias is not None,
    )  # fmt: skip
    return y
