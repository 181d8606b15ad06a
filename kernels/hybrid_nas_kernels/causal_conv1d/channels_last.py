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
        tokens = x.shape[1]
        x = x.contiguous()
        wide = torch.conv2d(
            _as_image(x), weight.view(channels, 1, 1, kernel), bias, padding=(0, kernel - 1), groups=channels
        )
        before = wide.permute(0, 2, 3, 1)[:, 0, :tokens]  # padding is on both sides; the causal part is the first
        ctx.save_for_backward(x, weight, before)
        ctx.parts = parts
        return tuple(F.silu(part) for part in torch.split(before, list(parts), dim=-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *dparts: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, before = ctx.saved_tensors
        batch, tokens, channels = x.shape
        kernel = weight.shape[1]
        wide = x.new_empty(batch, tokens + kernel - 1, channels)
        wide[:, tokens:] = 0
        dbefore = wide[:, :tokens]
        for dpart, part, out in zip(
            dparts, *(torch.split(v, list(ctx.parts), dim=-1) for v in (before, dbefore)), strict=True
        ):
            torch.ops.aten.silu_backward.grad_input(dpart, part, grad_input=out)
        # The input's gradient is the mirrored convolution, which oneDNN runs faster than its own backward.
        mirrored = weight.flip(1).view(channels, 1, 1, kernel)
        dx = torch.conv2d(_as_image(wide), mirrored, groups=channels).permute(0, 2, 3, 1)[:, 0]
        ones = x.new_ones(1, batch * tokens)
        taps = []
        product = x.new_empty(batch * tokens, channels)
        for back in reversed(range(kernel)):  # the tap that reads `back` tokens into the past
            rows = batch * max(tokens - back, 0)
            torch.mul(
                dbefore[:, back:],
                x[:, : tokens - back] if rows else x[:, :0],
                out=product[:rows].view(batch, -1, channels),
            )
            taps.append(torch.mm(ones[:, :rows], product[:rows]))
        dweight = torch.cat(taps).t()
        return dx, dweight, torch.mm(ones, dbefore.reshape(-1, channels))[0], None


def _as_image(x: Tensor) -> Tensor:
    """(batch, tokens, channels) seen as (batch, channels, 1, tokens), channels last, nothing moved."""
    return x.unsqueeze(1).permute(0, 3, 1, 2)
