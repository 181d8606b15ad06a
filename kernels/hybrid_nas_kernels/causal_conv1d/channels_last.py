"""Short depthwise causal convolution through oneDNN's channels-last depthwise kernel, for the CPU.

(batch, tokens, channels) is already the channels-last layout of an image of height 1 and width `tokens`, so oneDNN
reads it in place, in one pass for all taps; `conv1d` on (batch, channels, tokens) needs two transposes and is five
times as slow. oneDNN's weight gradient is the slow part of its backward, and is written out by taps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def causal_conv1d_channels_last(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """As `causal_conv1d`. Differentiable once."""
    y: Tensor = _ChannelsLast.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        channels, kernel = weight.shape
        tokens = x.shape[1]
        x = x.contiguous()
        wide = torch.conv2d(
            _as_image(x), weight.view(channels, 1, 1, kernel), bias, padding=(0, kernel - 1), groups=channels
        )
        before = wide.permute(0, 2, 3, 1)[:, 0, :tokens]  # padding is on both sides; the causal part is the first
        ctx.save_for_backward(x, weight, before)
        return F.silu(before)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight, before = ctx.saved_tensors
        batch, tokens, channels = x.shape
        kernel = weight.shape[1]
        wide = x.new_empty(batch, tokens + kernel - 1, channels)
        wide[:, tokens:] = 0
        dbefore = wide[:, :tokens]
        torch.ops.aten.silu_backward.grad_input(dy, before, grad_input=dbefore)
        image: Tensor = torch.ops.aten.convolution_backward(
            _as_image(wide),
            _as_image(x),
            weight.view(channels, 1, 1, kernel),
            None,
            [1, 1],
            [0, kernel - 1],
            [1, 1],
            False,
            [0, 0],
            channels,
            [True, False, False],
        )[0]
        ones = x.new_ones(1, batch * tokens)
        dweight = torch.zeros_like(weight)
        product = x.new_empty(batch * tokens, channels)
        for back in range(min(kernel, tokens)):  # the tap that reads `back` tokens into the past
            rows = batch * (tokens - back)
            tap = product[:rows].view(batch, tokens - back, channels)
            torch.mul(dbefore[:, back:], x[:, : tokens - back], out=tap)
            dweight[:, kernel - 1 - back] = torch.mm(ones[:, :rows], product[:rows])[0]
        return image.permute(0, 2, 3, 1)[:, 0], dweight, torch.mm(ones, dbefore.reshape(-1, channels))[0]


def _as_image(x: Tensor) -> Tensor:
    """(batch, tokens, channels) seen as (batch, channels, 1, tokens), channels last, nothing moved."""
    return x.unsqueeze(1).permute(0, 3, 1, 2)
