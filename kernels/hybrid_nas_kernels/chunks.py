"""A sequence cut into chunks, and the decays inside one: what the chunked scans with a state a head share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fold(value: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """(batch, tokens, heads, d) -> (chunks, batch * heads, size, d), padded with zeros to whole chunks."""
    batch, tokens, heads, _ = value.shape
    pad = -tokens % size
    value = value.to(dtype)
    value = F.pad(value, (0, 0, 0, 0, 0, pad)) if pad else value
    chunked = value.reshape(batch, -1, size, heads, value.shape[-1]).permute(1, 0, 3, 2, 4)
    return chunked.reshape(-1, batch * heads, size, value.shape[-1])


def unfold(chunks: list[Tensor], batch: int, tokens: int) -> Tensor:
    """Inverse of `fold` for one tensor (batch * heads, size, d) a chunk: (batch, tokens, heads, d)."""
    y = torch.cat(chunks, dim=1)
    return y.view(batch, -1, *y.shape[1:])[:, :, :tokens].transpose(1, 2)


def decays(log: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Of the log decay of each token (..., size): the decay from token j to token i >= j (..., size, size) and 0 above
    the diagonal; from the chunk's start to each token, and from each token to the chunk's end (..., size, 1).

    A padded token has log decay 0: it forgets nothing. The sums are float64, because a segment is a difference of two
    that may both be large, and so is its gradient. Only what is not positive is exponentiated.
    """
    size = log.shape[-1]
    total = torch.cumsum(log.double(), dim=-1)
    segment = (total[..., :, None] - total[..., None, :]).to(dtype)
    above = torch.ones(size, size, dtype=torch.bool, device=log.device).triu(1)
    between = segment.masked_fill(above, float("-inf")).exp()
    return between, total.to(dtype).exp()[..., None], (total[..., -1:] - total).to(dtype).exp()[..., None]
