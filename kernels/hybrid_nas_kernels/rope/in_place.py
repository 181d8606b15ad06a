"""Rotary position encoding written into one output; its backward is the rotation by the opposite angle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def rope_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As `rope`, with no temporaries. Differentiable once, in x."""
    y: Tensor = _InPlace.apply(x, cos[:, None].to(x.dtype), sin[:, None].to(x.dtype))  # type: ignore[no-untyped-call]
    return y


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    torch.mul(a, cos, out=y[..., :half]).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=y[..., half:]).addcmul_(a, sin, value=sign)
    return y


class _InPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(dy, cos, sin, -1), None, None
