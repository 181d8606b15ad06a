"""A mixture of SwiGLU experts, each reading its own tokens alone, which lie together once they are sorted by expert."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WHOLE = 8
"""Rows of an expert are filled up to a multiple of this. A CPU's matrix product treats the rows that its blocks leave
over by another kernel, so that without this a token's last bits would change with where the other tokens go."""


def experts_loop(x: Tensor, chosen: Tensor, weight: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """As `experts`, an expert after another. Waits for the counts, so it cannot be captured into a graph."""
    rows, order, counts = _sorted(x, chosen, len(gate))
    parts = []
    for e, part in enumerate(torch.split(rows, counts.tolist())):
        if len(part):
            whole = F.pad(part, (0, 0, 0, -len(part) % WHOLE))
            y = F.linear(F.silu(F.linear(whole, gate[e])) * F.linear(whole, up[e]), down[e])
            parts.append(y[: len(part)])
    return _gathered(torch.cat(parts), order, weight, x)


def experts_grouped(x: Tensor, chosen: Tensor, weight: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """As `experts`, all experts in one grouped matrix product each for gate, up and down."""
    rows, order, counts = _sorted(x, chosen, len(gate))
    ends = torch.cumsum(counts, 0).to(torch.int32)
    gates, ups, downs = (w.transpose(1, 2) for w in (gate, up, down))
    hidden = F.silu(F.grouped_mm(rows, gates, offs=ends)) * F.grouped_mm(rows, ups, offs=ends)
    return _gathered(F.grouped_mm(hidden, downs, offs=ends), order, weight, x)


def _sorted(x: Tensor, chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """The rows of x, one for each choice, sorted by expert; the order of the choices; how many an expert has."""
    flat = chosen.flatten()
    order = torch.argsort(flat, stable=True)
    counts = torch.zeros(experts, dtype=torch.long, device=x.device).scatter_add_(0, flat, torch.ones_like(flat))
    return x[order // chosen.shape[1]], order, counts


def _gathered(rows: Tensor, order: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """The weighted sum of the rows of each token, in the order of the tokens."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return (rows[back].view(*weight.shape, -1) * weight[..., None].to(x.dtype)).sum(1)
