"""Mean cross-entropy of next-token logits, in nats. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor

from hybrid_nas_kernels.cross_entropy.exp2 import cross_entropy_exp2
from hybrid_nas_kernels.cross_entropy.reference import cross_entropy_reference
from hybrid_nas_kernels.dispatch import pick

__all__ = ["IMPLEMENTATIONS", "choose", "cross_entropy", "cross_entropy_exp2", "cross_entropy_reference"]

IMPLEMENTATIONS = {"reference": cross_entropy_reference, "exp2": cross_entropy_exp2}


def choose(device: torch.device) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    if device.type != "cpu":
        return "reference", f"exp2 was measured on the CPU alone, not on {device.type}"
    return "exp2", "no slow path where probabilities underflow"


def cross_entropy(logits: Tensor, targets: Tensor, *, implementation: str = "auto") -> Tensor:
    """Mean of -log softmax(logits)[target], nats. logits (..., vocab); targets (...), int64. Returns a scalar."""
    run = pick("cross_entropy", implementation, IMPLEMENTATIONS, lambda: choose(logits.device))
    return run(logits, targets)
