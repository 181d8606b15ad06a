"""RMSNorm, then a linear map whose output is cut into parts. README.md has the mathematics."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.adjacent import products
from hybrid_nas_kernels.dispatch import deferred, pick, runs_triton, triton_or
from hybrid_nas_kernels.norm_linear.folded import norm_linear_folded
from hybrid_nas_kernels.norm_linear.reference import norm_linear_reference

__all__ = [
    "IMPLEMENTATIONS",
    "add_rms_norm",
    "choose",
    "norm_linear",
    "norm_linear_folded",
    "norm_linear_reference",
    "norm_linears",
    "norm_once",
    "rms_norm",
]

IMPLEMENTATIONS = {
    "reference": norm_linear_reference,
    "folded": norm_linear_folded,
    "triton": deferred("hybrid_nas_kernels.norm_linear.triton_kernels", "norm_linear_triton", needs="triton"),
}


FEW = 32


def choose(device: torch.device, rows: int = FEW, dtype: torch.dtype = torch.float32) -> tuple[str, str]:
    """The implementation that "auto" takes on `device` for so many rows (tokens of all sequences), and why."""
    if device.type != "cpu":
        return triton_or(
            device, lambda: ("reference", f"folding was measured on the CPU alone, not on {device.type}"), dtype
        )
    if rows < FEW:
        return "reference", f"under {FEW} rows, as in decoding, folding the weights costs more than it saves"
    return "folded", "fewer passes over the tokens"


def norm_linear(
    x: Tensor, norm: Tensor, weight: Tensor, parts: Sequence[int], *, eps: float, implementation: str = "auto"
) -> tuple[Tensor, ...]:
    """rms_norm(x) * norm, times weight^T, cut along the last dimension into `parts`.

    x (..., width); norm (width,); weight (sum of parts, width). Returns one tensor (..., part) a part.
    """
    run = pick(
        "norm_linear", implementation, IMPLEMENTATIONS, lambda: choose(x.device, x.numel() // len(norm), x.dtype)
    )
    return run(x, norm, weight, tuple(parts), eps)


def rms_norm(x: Tensor, norm: Tensor, *, eps: float) -> Tensor:
    """x / rms(x) * norm over the last dimension, in the dtype of x. Triton on a CUDA device, torch's own elsewhere."""
    return _rms_norm(x, norm, eps) if runs_triton(x) else F.rms_norm(x, norm.shape, norm.to(x.dtype), eps)


def add_rms_norm(x: Tensor, y: Tensor | None, norm: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
    """x + y (x itself without `y`), and rms_norm of it times norm: a residual stream and what the next layer reads of
    it. One pass by Triton on a CUDA device, torch's own elsewhere. In decoding y may be parts (parts, rows, width), as
    `linear_step_parts` leaves them: all of them are added."""
    if norm.shape != x.shape[-1:] or (y is not None and y.shape[max(0, y.ndim - x.ndim) :] != x.shape):
        found = ", ".join(str(None if v is None else tuple(v.shape)) for v in (x, y, norm))
        raise ValueError(
            f"add_rms_norm: of x (..., width), y has the shape, or parts of it, and norm (width,), found {found}"
        )
    if y is not None and y.ndim > x.ndim:
        if runs_triton(x):
            return _add_parts_rms_norm(x, y, norm, eps)  # type: ignore[no-any-return]
        total = (y.sum(0) + x).to(x.dtype)
        return total, rms_norm(total, norm, eps=eps)
    if y is not None and runs_triton(x):
        return _add_rms_norm(x, y, norm, eps)  # type: ignore[no-any-return]
    total = x if y is None else x + y
    return total, rms_norm(total, norm, eps=eps)


def norm_linears(x: Tensor, norm: Tensor | None, weights: Sequence[Tensor], *, eps: float) -> tuple[Tensor, ...]:
    """rms_norm(x) * norm (x itself without `norm`), times each of `weights` transposed: for a few rows, as in decoding,
    where copying the weights side by side would cost more than the products. Where they lie so, it is one product."""
    return products(x if norm is None else rms_norm(x, norm, eps=eps), weights)


def norm_once(x: Tensor, norm: Tensor | None, *, eps: float) -> tuple[Tensor, Tensor | None]:
    """x and norm for several operations that begin with one norm: where Triton runs, x normalised and no norm left;
    elsewhere as they are, since there the norm is folded into each operation's weights."""
    return (rms_norm(x, norm, eps=eps), None) if norm is not None and runs_triton(x) else (x, norm)


_add_parts_rms_norm = deferred("hybrid_nas_kernels.norm_linear.triton_step", "add_parts_rms_norm", needs="triton")
_add_rms_norm = deferred("hybrid_nas_kernels.norm_linear.triton_kernels", "add_rms_norm", needs="triton")
_rms_norm = deferred("hybrid_nas_kernels.norm_linear.triton_kernels", "rms_norm", needs="triton")
