"""Gate, RMSNorm in groups, linear map: the meaning."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def gated_norm_linear_reference(y: Tensor, z: Tensor, norm: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
    """Shapes as in `gated_norm_linear`."""
    parts = (y * F.silu(z)).view(*y.shape[:-1], groups, -1)
    return F.linear(F.rms_norm(parts, parts.shape[-1:], eps=eps).view(y.shape) * norm, weight)
