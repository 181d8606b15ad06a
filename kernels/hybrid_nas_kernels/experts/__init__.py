"""A mixture of SwiGLU experts [arXiv:1701.06538, arXiv:2401.06066]. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.dispatch import pick
from hybrid_nas_kernels.experts.by_expert import experts_grouped, experts_loop
from hybrid_nas_kernels.experts.reference import experts_reference

__all__ = ["IMPLEMENTATIONS", "choose", "experts", "experts_grouped", "experts_loop", "experts_reference"]

IMPLEMENTATIONS = {"reference": experts_reference, "loop": experts_loop, "grouped": experts_grouped}
ALIGNED = 8


def choose(device: torch.device, dtype: torch.dtype, width: int, hidden: int) -> tuple[str, str]:
    """The implementation that "auto" takes on `device` for weights of `dtype` and experts of this size, and why."""
    if device.type != "cuda":
        return "loop", f"torch's grouped product is a loop too on {device.type}"
    if not hasattr(F, "grouped_mm"):
        return "loop", f"torch {torch.__version__} has no grouped product"
    if dtype != torch.bfloat16 or width % ALIGNED or hidden % ALIGNED:
        return "loop", f"torch's grouped product is fast for bfloat16 and multiples of {ALIGNED} channels alone"
    return "grouped", "torch's grouped product"


def experts(
    x: Tensor,
    chosen: Tensor,
    weight: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    *,
    implementation: str = "auto",
) -> Tensor:
    """sum over the chosen experts e of weight_e down_e (silu(gate_e x) * (up_e x)).

    x (tokens, width); chosen (tokens, active) int64, an expert at most once a token, and weight (tokens, active); gate
    and up (experts, hidden, width); down (experts, width, hidden). Returns like x.
    """
    rule = lambda: choose(x.device, x.dtype, x.shape[1], gate.shape[1])  # noqa: E731
    return pick("experts", implementation, IMPLEMENTATIONS, rule)(x, chosen, weight, gate, up, down)
