"""Mean cross-entropy of next-token logits: the meaning."""

from __future__ import annotations

from torch import Tensor


def cross_entropy_reference(logits: Tensor, targets: Tensor) -> Tensor:
    """Shapes as in `cross_entropy`."""
    flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1, 1)
    return (flat.logsumexp(-1, keepdim=True) - flat.gather(-1, wanted)).mean()
