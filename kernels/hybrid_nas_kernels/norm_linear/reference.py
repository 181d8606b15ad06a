"""RMSNorm, then a linear map: the meaning."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def norm_linear_reference(
    x: Tensor, norm: Tensor, weight: Tensor, parts: tuple[int, ...], eps: float
) -> tuple[Tensor, ...]:
    """Shapes as in `norm_linear`."""
    y = F.linear(F.rms_norm(x, norm.shape, norm, eps), weight)
    return torch.split(y, list(parts), dim=-1)
