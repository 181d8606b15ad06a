"""The gated delta rule, the scan of Gated DeltaNet [arXiv:2412.06464]. README.md has the mathematics."""

from __future__ import annotations

import importlib.metadata
import re

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
    "refused",
]

IMPLEMENTATIONS = {
    "reference": gated_delta_reference,
    "chunked": gated_delta_chunked,
    "fla": deferred("hybrid_nas_kernels.gated_delta.fla", "gated_delta_fla", needs="fla"),
}


def choose(device: torch.device) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why.

    Never flash-linear-attention's: on an H200 (Triton 3.7.1) not one of ten small sizes had ended its first call and
    gradients in 70 s of tuning, longer than a proxy trains.
    """
    if device.type != "cuda":
        return "chunked", "torch alone, matrix products in chunks"
    return "chunked", f"torch alone, nothing to tune; by name fla: {refused(device) or 'it tunes for minutes'}"


def refused(device: torch.device) -> str | None:
    """Why flash-linear-attention refuses gradients on this device; None where it does not.

    Triton from 3.4 to before 3.7.1 compiles one of its kernels wrongly for Hopper
    (https://github.com/fla-org/flash-linear-attention/issues/640), and it says so only at the first backward pass.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability(device)[0] != 9:
        return None
    try:
        found = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None
    version = tuple(int(part) for part in re.findall(r"\d+", found)[:3])
    if (3, 4) <= version < (3, 7, 1):
        return "flash-linear-attention refuses Triton from 3.4 to before 3.7.1 on Hopper"
    return None


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
