"""Rows of a table, whose gradient is one matrix product with the tokens as one-hot rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def embedding_one_hot(tokens: Tensor, table: Tensor) -> Tensor:
    """As `embedding`. Differentiable once, in `table`."""
    rows: Tensor = _OneHot.apply(tokens, table)  # type: ignore[no-untyped-call]
    return rows


class _OneHot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(tokens)
        ctx.vocab = len(table)
        return F.embedding(tokens, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, drows: Tensor) -> tuple[None, Tensor]:
        (tokens,) = ctx.saved_tensors
        entries = torch.arange(ctx.vocab, device=tokens.device)
        hot = (tokens.reshape(1, -1) == entries[:, None]).to(drows.dtype)
        return None, torch.mm(hot, drows.reshape(-1, drows.shape[-1]))
