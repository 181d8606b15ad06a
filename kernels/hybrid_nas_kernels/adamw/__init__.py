"""One step of AdamW with gradients clipped by their norm, over flat parameters. README.md has the mathematics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick, triton_or

__all__ = ["IMPLEMENTATIONS", "Group", "adamw_", "choose"]


@dataclass(frozen=True)
class Group:
    """Parameters of one weight decay, in a row: `master` float32, its `gradient`, the two moments float32, and
    `compute`, what a model reads (`master` itself, or a copy in another dtype)."""

    master: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    compute: Tensor
    weight_decay: float


def adamw_reference_(
    groups: Sequence[Group], rates: Tensor, step: Tensor, clip: float, betas: tuple[float, float], eps: float
) -> None:
    """In torch's operations."""
    norms = torch.stack([torch.linalg.vector_norm(group.gradient.to(group.master.dtype)) for group in groups])
    scale = (clip / (torch.linalg.vector_norm(norms) + 1e-6)).clamp(max=1.0)
    rate, count = rates[step], step + 1
    for group in groups:
        gradient = group.gradient.to(group.master.dtype) * scale
        group.mean.lerp_(gradient, 1 - betas[0])
        group.square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
        divisor = (group.square / (1 - betas[1] ** count)).sqrt() + eps
        group.master.mul_(1 - rate * group.weight_decay)
        group.master.sub_(rate / (1 - betas[0] ** count) * group.mean / divisor)
        if group.compute is not group.master:
            group.compute.copy_(group.master)


IMPLEMENTATIONS = {
    "reference": adamw_reference_,
    "triton": deferred("hybrid_nas_kernels.adamw.triton_kernels", "adamw_triton_", needs="triton"),
}


def choose(device: torch.device) -> tuple[str, str]:
    """The implementation that "auto" takes on `device`, and why."""
    return triton_or(device, lambda: ("reference", "torch's own operations"))


def adamw_(
    groups: Sequence[Group],
    rates: Tensor,
    step: Tensor,
    *,
    clip: float,
    betas: tuple[float, float],
    eps: float,
    implementation: str = "auto",
) -> None:
    """One step in place [arXiv:1711.05101], with all gradients scaled so that their norm is at most `clip`.

    `step` (1,) int64 counts from 0, and `rates` (steps,) float32 has the learning rate of each step: both are read on
    their device, so that a captured step goes on by itself.
    """
    run = pick("adamw", implementation, IMPLEMENTATIONS, lambda: choose(step.device))
    run(groups, rates, step, clip, betas, eps)
