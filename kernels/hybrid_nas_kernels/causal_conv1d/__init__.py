"""Short depthwise causal convolution with SiLU, as before the scan of Mamba-2. README.md has the mathematics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hybrid_nas_kernels.causal_conv1d.channels_last import causal_conv1d_channels_last
from hybrid_nas_kernels.causal_conv1d.reference import causal_conv1d_reference, causal_conv1d_step_reference
from hybrid_nas_kernels.dispatch import deferred, pick, runs_triton, triton_or

__all__ = [
    "IMPLEMENTATIONS",
    "causal_conv1d",
    "causal_conv1d_channels_last",
    "causal_conv1d_reference",
    "causal_conv1d_step",
    "causal_conv1d_step_reference",
    "choose",
]

IMPLEMENTATIONS = {
    "reference": causal_conv1d_reference,
    "channels_last": causal_conv1d_channels_last,
    "causal_conv1d": deferred(
        "hybrid_nas_kernels.causal_conv1d.published", "causal_conv1d_published", needs="causal_conv1d"
    ),
    "triton": deferred("hybrid_nas_kernels.causal_conv1d.triton_kernels", "causal_conv1d_triton", needs="triton"),
}


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    if device.type != "cpu":
        return triton_or(device, lambda: ("reference", f"no other way on {device.type}"), dtype)
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "reference", "this torch was built without oneDNN"
    return "channels_last", "oneDNN's depthwise kernel reads this layout in place"


def causal_conv1d(
    x: Tensor, weight: Tensor, bias: Tensor, parts: Sequence[int], *, implementation: str = "auto"
) -> tuple[Tensor, ...]:
    """silu(bias + sum_k weight[:, k] x[:, t - K + 1 + k]), with zeros before the first token, cut into `parts`.

    x (batch, tokens, channels); weight (channels, K), the last tap meets the token itself; bias (channels,). Returns
    one tensor (batch, tokens, part) for each of `parts`, which sum to the channels.
    """
    run = pick("causal_conv1d", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.dtype))
    return run(x, weight, bias, tuple(parts))


def causal_conv1d_step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One token: x (batch, channels); `state` (batch, channels, K), the last K inputs, is updated in place. Triton on a
    CUDA device, the reference elsewhere."""
    return (causal_conv1d_step_triton if runs_triton(x) else causal_conv1d_step_reference)(x, state, weight, bias)


causal_conv1d_step_triton = deferred(
    "hybrid_nas_kernels.causal_conv1d.triton_step", "causal_conv1d_step_triton", needs="triton"
)
