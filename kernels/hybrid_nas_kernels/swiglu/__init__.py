"""RMSNorm and a SwiGLU feed-forward network. README.md has the mathematics."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels import norm_linear
from hybrid_nas_kernels.dispatch import deferred, pick, runs_triton
from hybrid_nas_kernels.native import why_not
from hybrid_nas_kernels.norm_linear import FEW
from hybrid_nas_kernels.swiglu.folded import swiglu_folded
from hybrid_nas_kernels.swiglu.native import swiglu_native
from hybrid_nas_kernels.swiglu.reference import swiglu_reference

__all__ = ["IMPLEMENTATIONS", "choose", "swiglu", "swiglu_folded", "swiglu_native", "swiglu_reference", "swiglu_step"]

IMPLEMENTATIONS = {
    "reference": swiglu_reference,
    "folded": swiglu_folded,
    "native": swiglu_native,
    "triton": deferred("hybrid_nas_kernels.swiglu.triton_kernels", "swiglu_triton", needs="triton"),
}


def choose(device: torch.device, rows: int = FEW, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes for so many rows (tokens of all sequences), and why."""
    if rows >= FEW and why_not(device, dtype) is None:
        return "native", "one node, compiled for this CPU"
    return norm_linear.choose(device, rows, dtype)


def swiglu(
    x: Tensor, norm: Tensor | None, gate: Tensor, up: Tensor, down: Tensor, *, eps: float, implementation: str = "auto"
) -> Tensor:
    """down (silu(gate n) * (up n)), n = rms_norm(x) * norm, or x itself without `norm`.

    x (..., width); norm (width,); gate and up (hidden, width); down (width, hidden). Returns like x.
    """
    if norm is None:
        if runs_triton(x):
            return _normed(x, gate, up, down)  # type: ignore[no-any-return]
        return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
    run = pick("swiglu", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.numel() // len(norm), x.dtype))
    return run(x, norm, gate, up, down, eps)


def swiglu_step(n: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """`swiglu` without a norm, of rows (rows, width) of a decoding step: (rows, width), or parts of it that are still
    to be added, as of `linear_step_parts`."""
    if runs_triton(n):
        return _step(n, gate, up, down)  # type: ignore[no-any-return]
    return F.linear(F.silu(F.linear(n, gate)) * F.linear(n, up), down)


_step = deferred("hybrid_nas_kernels.swiglu.triton_kernels", "swiglu_step", needs="triton")
_normed = deferred("hybrid_nas_kernels.swiglu.triton_kernels", "swiglu_normed", needs="triton")
