"""Random arguments of Mamba-2's scan, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = ("x", "dt", "A", "B", "C", "D", "initial_state")


def scan_values(
    tokens: int,
    heads: int = 4,
    head_dim: int = 8,
    groups: int = 1,
    d_state: int = 5,
    batch: int = 2,
    seed: int = 0,
    dt_scale: float = 1.0,
) -> dict[str, Tensor]:
    """In the order of NAMES, which is that of `ssd`."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=g)

    return {
        "x": normal(batch, tokens, heads, head_dim),
        "dt": dt_scale * torch.rand(batch, tokens, heads, dtype=torch.float64, generator=g),
        "A": -16 * torch.rand(heads, dtype=torch.float64, generator=g),
        "B": normal(batch, tokens, groups, d_state),
        "C": normal(batch, tokens, groups, d_state),
        "D": normal(heads),
        "initial_state": normal(batch, heads, head_dim, d_state),
    }
