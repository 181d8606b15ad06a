"""Short depthwise causal convolution with SiLU, as before the scan of Mamba-2. README.md has the mathematics."""

from __future__ import annotations

from torch import Tensor

from hybrid_nas_kernels.causal_conv1d.reference import causal_conv1d_reference, causal_conv1d_step
from hybrid_nas_kernels.dispatch import pick

__all__ = ["IMPLEMENTATIONS", "causal_conv1d", "causal_conv1d_reference", "causal_conv1d_step", "choose"]

IMPLEMENTATIONS = {"reference": causal_conv1d_reference}


def choose() -> tuple[str, str]:
    """The implementation that "auto" takes, and why."""
    return "reference", "torch alone"


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, *, implementation: str = "auto") -> Tensor:
    """silu(bias + sum_k weight[:, k] x[:, t - K + 1 + k]), with zeros before the first token.

    x (batch, tokens, channels); weight (channels, K), the last tap meets the token itself; bias (channels,).
    Returns the shape and dtype of x.
    """
    return pick("causal_conv1d", implementation, IMPLEMENTATIONS, choose)(x, weight, bias)
