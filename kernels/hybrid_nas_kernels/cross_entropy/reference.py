"""Mean cross-entropy of next-token logits: the meaning."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def cross_entropy_reference(logits: Tensor, targets: Tensor) -> Tensor:
    """Shapes as in `cross_entropy`."""
    flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1, 1)
    return (flat.logsumexp(-1, keepdim=True) - flat.gather(-1, wanted)).mean()


def linear_cross_entropy_reference(
    x: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Shapes as in `linear_cross_entropy`."""
    losses = F.cross_entropy(F.linear(x, weight), targets, reduction="none")
    return (losses * row_weights).sum(), losses
