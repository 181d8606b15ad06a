"""RMSNorm and a SwiGLU feed-forward network. README.md has the mathematics."""

from __future__ import annotations

from torch import Tensor

from hybrid_nas_kernels.dispatch import deferred, pick
from hybrid_nas_kernels.norm_linear import choose
from hybrid_nas_kernels.swiglu.folded import swiglu_folded
from hybrid_nas_kernels.swiglu.reference import swiglu_reference

__all__ = ["IMPLEMENTATIONS", "choose", "swiglu", "swiglu_folded", "swiglu_reference"]

IMPLEMENTATIONS = {
    "reference": swiglu_reference,
    "folded": swiglu_folded,
    "triton": deferred("hybrid_nas_kernels.swiglu.triton_kernels", "swiglu_triton", needs="triton"),
}


def swiglu(
    x: Tensor, norm: Tensor, gate: Tensor, up: Tensor, down: Tensor, *, eps: float, implementation: str = "auto"
) -> Tensor:
    """down (silu(gate n) * (up n)), n = rms_norm(x) * norm.

    x (..., width); norm (width,); gate and up (hidden, width); down (width, hidden). Returns like x.
    """
    run = pick("swiglu", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.numel() // len(norm), x.dtype))
    return run(x, norm, gate, up, down, eps)
