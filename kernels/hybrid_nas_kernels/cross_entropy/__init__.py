"""Mean cross-entropy of next-token logits, in nats. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.cross_entropy.exp2 import cross_entropy_exp2
from hybrid_nas_kernels.cross_entropy.reference import cross_entropy_reference, linear_cross_entropy_reference
from hybrid_nas_kernels.dispatch import deferred, pick, triton_or

__all__ = [
    "IMPLEMENTATIONS",
    "LINEAR_IMPLEMENTATIONS",
    "choose",
    "cross_entropy",
    "cross_entropy_exp2",
    "cross_entropy_reference",
    "linear_cross_entropy",
    "linear_cross_entropy_reference",
]

_TRITON = "hybrid_nas_kernels.cross_entropy.triton_kernels"
IMPLEMENTATIONS = {
    "reference": cross_entropy_reference,
    "exp2": cross_entropy_exp2,
    "triton": deferred(_TRITON, "cross_entropy_triton", needs="triton"),
}
LINEAR_IMPLEMENTATIONS = {
    "reference": linear_cross_entropy_reference,
    "triton": deferred(_TRITON, "linear_cross_entropy_triton", needs="triton"),
}


def choose(device: torch.device, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    if device.type != "cpu":
        return triton_or(
            device, lambda: ("reference", f"exp2 was measured on the CPU alone, not on {device.type}"), dtype
        )
    return "exp2", "no slow path where probabilities underflow"


def cross_entropy(logits: Tensor, targets: Tensor, *, implementation: str = "auto") -> Tensor:
    """Mean of -log softmax(logits)[target], nats. logits (..., vocab); targets (...), int64. Returns a scalar."""
    run = pick("cross_entropy", implementation, IMPLEMENTATIONS, lambda: choose(logits.device, logits.dtype))
    return run(logits, targets)


def linear_cross_entropy(
    x: Tensor, weight: Tensor, targets: Tensor, row_weights: Tensor, *, implementation: str = "auto"
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the logits x weight^T: the sum of each row's loss times its weight, and the losses, in nats.

    x (rows, width); weight (vocab, width); targets (rows,) whole numbers; row_weights (rows,) float32. Returns a
    scalar, through which gradients flow to x and weight, and (rows,) without gradient.
    """

    def auto() -> tuple[str, str]:
        return triton_or(x.device, lambda: ("reference", "torch's own"), x.dtype)

    run = pick("linear_cross_entropy", implementation, LINEAR_IMPLEMENTATIONS, auto)
    total, losses = run(x, weight, targets, row_weights)
    return total, losses.detach()
