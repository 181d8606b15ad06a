"""The selective scan by mamba-ssm's CUDA kernel, for a GPU."""

from __future__ import annotations

import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor


def selective_scan_mamba_ssm(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `selective_scan`, from a zero state alone: the kernel takes no other. It wants (batch, channels, tokens)."""
    if initial_state is not None:
        raise ValueError("selective_scan: mamba_ssm begins at a zero state; ask for unrolled to begin at another")
    x_, dt_, B_, C_ = (
        value.transpose(1, 2).contiguous() for value in (x, dt.to(x.dtype), B.to(x.dtype), C.to(x.dtype))
    )
    y, state = selective_scan_fn(x_, dt_, A.float(), B_, C_, D.float(), return_last_state=True)
    return y.transpose(1, 2), state.to(torch.promote_types(x.dtype, torch.float32))
