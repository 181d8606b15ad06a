"""The gated delta rule, the scan of Gated DeltaNet [arXiv:2412.06464]. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick
from hybrid_nas_kernels.gated_delta.chunked import gated_delta_chunked
from hybrid_nas_kernels.gated_delta.reference import gated_delta_reference, gated_delta_step

__all__ = [
    "IMPLEMENTATIONS",
    "choose",
    "gated_delta",
    "gated_delta_chunked",
    "gated_delta_reference",
    "gated_delta_step",
]

IMPLEMENTATIONS = {
    "reference": gated_delta_reference,
    "chunked": gated_delta_chunked,
    "fla": deferred("hybrid_nas_kernels.gated_delta.fla", "gated_delta_fla", needs="fla"),
}


def choose(device: torch.device) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    if device.type != "cuda":
        return "chunked", "torch alone, matrix products in chunks"
    return "chunked", "torch alone; flash-linear-attention's kernels (fla) were not compared on a GPU yet"


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor,
    *,
    initial_state: Tensor | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor]:
    """y and the final state of the gated delta rule.

        S' = exp(log_decay_t) S_{t-1},    S_t = S' + k_t beta_t (v_t - S'^T k_t)^T,    y_t = S_t^T q_t

    q and k (batch, tokens, heads, key_dim), k of length at most 1; v (batch, tokens, heads, value_dim); log_decay, not
    above 0, and beta, from 0 to 1, (batch, tokens, heads); `initial_state` (batch, heads, key_dim, value_dim), zero if
    None. Any number of tokens from 1. Returns y like v, and the state after the last token, in float32 at least.
    """
    if k.shape[1] < 1:
        raise ValueError("gated_delta: a sequence needs at least 1 token, found 0")
    run = pick("gated_delta", implementation, IMPLEMENTATIONS, lambda: choose(k.device))
    return run(q, k, v, log_decay, beta, initial_state=initial_state)
