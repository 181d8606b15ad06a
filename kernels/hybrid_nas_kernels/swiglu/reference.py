"""RMSNorm and a SwiGLU feed-forward network: the meaning [arXiv:2002.05202]."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def swiglu_reference(x: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, eps: float) -> Tensor:
    """Shapes as in `swiglu`."""
    n = F.rms_norm(x, norm.shape, norm, eps)
    return F.linear(F.silu(F.linear(n, gate)) * F.linear(n, up), down)
