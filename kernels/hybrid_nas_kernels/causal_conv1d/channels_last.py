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


def causal_conv1d_channels_last(x: Tensor, weight: Tensor, bias: Tensor, parts: tuple[int, ...]) -> tuple[Tensor, ...]:
    """As `causal_conv1d`. Differentiable once. Each part is a tensor of its own, with no gaps between its rows."""
    outputs: tuple[Tensor, ...] = _ChannelsLast.apply(x, weight, bias, parts)  # type: ignore[no-untyped-call]
    return outputs


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, parts: tuple[int, ...]) -> tuple[Tensor, ...]:
        channels, kernel = weight.shape
        padded = torch.cat((x.new_zeros(len(x), kernel - 1, channels), x), dim=1)
        before = torch.conv2d(_as_image(padded), weight.view(channels, 1, 1, kernel), bias, groups=channels)
        before = before.permute(0, 2, 3, 1).squeeze(1)
        ctx.save_for_backward(padded, weight, before)
        ctx.parts = parts
        return tuple(F.silu(part) for part in torch.split(before, list(parts), dim=-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dparts: Tensor) -> tuple[Tensor | None, ...]:
        padded, weight, before = ctx.saved_tensors
        batch, tokens, channels = before.shape
        kernel = weight.shape[1]
        wide = padded.new_empty(padded.shape)
        wide[:, tokens:] = 0
        dbefore = wide[:, :tokens]
        parts = (torch.split(value, list(ctx.parts), dim=-1) for value in (before, dbefore))
        for dpart, part, out in zip(dparts, *parts, strict=True):
            torch.ops.aten.silu_backward.grad_input(dpart, part, grad_input=out)
        # The input's gradient is the mirrored convolution, which oneDNN runs faster than its own backward.
        mirrored = weight.flip(1).view(channels, 1, 1, kernel)
        dx = torch.conv2d(_as_image(wide), mirrored, groups=channels).permute(0, 2, 3, 1).squeeze(1)
        # All taps at once: each token against the `kernel` inputs that its output read, summed over tokens.
        row, column = padded.stride()[:2]
        windows = padded.as_strided((batch, tokens, kernel, channels), (row, column, column, 1))
        ones = padded.new_ones(1, batch * tokens)
        products = padded.new_empty(batch, tokens, kernel, channels)
        torch.mul(windows, dbefore[:, :, None], out=products)
        taps = torch.mm(ones, products.view(batch * tokens, kernel * channels))
        dweight = taps.view(kernel, channels).t()
        return dx, dweight, torch.mm(ones, dbefore.reshape(-1, channels))[0], None


def _as_image(x: Tensor) -> Tensor:
    """(batch, tokens, channels) seen as (batch, channels, 1, tokens), channels last, nothing moved."""
    return x.unsqueeze(1).permute(0, 3, 1, 2)
