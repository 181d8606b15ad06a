"""Short depthwise causal convolution and SiLU: the meaning, and its decoding step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def causal_conv1d_reference(x: Tensor, weight: Tensor, bias: Tensor, parts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """silu(bias + sum_k weight[:, k] x[t - K + 1 + k]), tap by tap. Shapes as in `causal_conv1d`."""
    kernel, tokens = weight.shape[1], x.shape[1]
    padded = F.pad(x, (0, 0, kernel - 1, 0))
    total = bias.expand_as(x)
    for k in range(kernel):
        total = total + weight[:, k] * padded[:, k : k + tokens]
    return torch.split(F.silu(total), list(parts), dim=-1)


def causal_conv1d_step_reference(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One token: x (batch, channels); `state` (batch, channels, K), the last K inputs, is updated in place."""
    state.copy_(torch.roll(state, -1, dims=-1))
    state[..., -1] = x
    return F.silu((state.to(x.dtype) * weight).sum(-1) + bias)
