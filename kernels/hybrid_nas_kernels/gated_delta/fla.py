"""The gated delta rule by flash-linear-attention's Triton kernels, for a GPU."""

from __future__ import annotations

import torch
from fla.ops.gated_delta_rule import chunk_gated_delta_rule
from torch import Tensor


def gated_delta_fla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """As `gated_delta`; decays in float32, as the kernels want them."""
    y, state = chunk_gated_delta_rule(
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        log_decay.float().contiguous(),
        beta.to(v.dtype).contiguous(),
        scale=1.0,
        initial_state=None if initial_state is None else initial_state.float(),
        output_final_state=True,
    )
    return y, state.to(torch.promote_types(v.dtype, torch.float32))
