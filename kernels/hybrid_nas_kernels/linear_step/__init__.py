"""A linear map of the few rows that decoding has. README.md has the kernel and when it is taken."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.dispatch import deferred, pick, triton_or
from hybrid_nas_kernels.linear_step.blocks import ROWS, Blocks, blocks_of
from hybrid_nas_kernels.linear_step.reference import linear_step_reference

__all__ = [
    "IMPLEMENTATIONS",
    "ROWS",
    "Blocks",
    "blocks_of",
    "choose",
    "linear_step",
    "linear_step_parts",
    "linear_step_reference",
    "whole",
]

IMPLEMENTATIONS = {
    "reference": linear_step_reference,
    "triton": deferred("hybrid_nas_kernels.linear_step.triton_step", "linear_step_triton", needs="triton"),
}

PARTS = {
    "reference": linear_step_reference,
    "triton": deferred("hybrid_nas_kernels.linear_step.triton_step", "linear_step_parts_triton", needs="triton"),
}

MEASURED = 9
"""The compute capability, major, of the GPU that it was timed on: H100, as are H200 and GH200."""


def choose(
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    rows: int = 4,
    outputs: int = 128_256,
    channels: int = 2048,
    aligned: bool = True,
) -> tuple[str, str]:
    """The implementation that "auto" takes for so many rows and a weight (outputs, channels), and why; by default for
    the classifier of the paper's 1B models. `aligned`: every row begins at a multiple of 16 bytes."""
    name, reason = triton_or(device, lambda: ("reference", f"there is no other on {device.type}"), dtype)
    if name != "triton":
        return name, reason
    major, minor = _capability(device)
    if major != MEASURED:
        return "reference", f"cuBLAS: ours was timed at compute capability {MEASURED} alone, not at {major}.{minor}"
    if dtype != torch.bfloat16:
        return "reference", f"cuBLAS: ours was timed in bfloat16 alone, not in {dtype}".replace("torch.", "")
    if rows > ROWS:
        return "reference", f"cuBLAS: ours has up to {ROWS} rows, found {rows}"
    if not aligned:
        return "reference", "cuBLAS: ours was timed where rows begin at multiples of 16 bytes"
    if blocks_of(outputs, channels) is None:
        return "reference", f"cuBLAS was faster, or ours was not timed, at {outputs:,} x {channels:,}"
    return "triton", "faster than cuBLAS at this shape, timed on an H100"


def linear_step(x: Tensor, weight: Tensor, *, implementation: str = "auto") -> Tensor:
    """x (rows, channels) times weight (outputs, channels) transposed, for the few rows of a decoding step: (rows,
    outputs). No gradients but the reference's.

    What is no decoding step, because it has gradients or tokens in sequences (..., tokens, channels), is torch's own.
    """
    if implementation == "auto" and (x.ndim != 2 or torch.is_grad_enabled()):
        return F.linear(x, weight)
    run = pick("linear_step", implementation, IMPLEMENTATIONS, lambda: _choose(x, weight))
    return run(x, weight)


def linear_step_parts(x: Tensor, weight: Tensor) -> Tensor:
    """As `linear_step`; where the Triton way cuts the channels into parts, those (parts, rows, outputs), float32, which
    are still to be added, as `add_rms_norm` does with the sum that it takes anyway."""
    if x.ndim != 2 or torch.is_grad_enabled():
        return F.linear(x, weight)
    return pick("linear_step", "auto", PARTS, lambda: _choose(x, weight))(x, weight)


def whole(y: Tensor, like: Tensor) -> Tensor:
    """What `linear_step_parts` left, its parts added, in the dtype of `like`, which has the dimensions of a whole."""
    return _add_parts(y, like.dtype) if y.ndim > like.ndim else y


_add_parts = deferred("hybrid_nas_kernels.linear_step.triton_step", "add_parts", needs="triton")


def _choose(x: Tensor, weight: Tensor) -> tuple[str, str]:
    aligned = _aligned(x) and _aligned(weight)
    return choose(x.device, x.dtype, len(x), len(weight), weight.shape[1], aligned)


def _aligned(rows: Tensor) -> bool:
    step, along = rows.stride()
    return along == 1 and (step * rows.element_size()) % 16 == 0 and rows.data_ptr() % 16 == 0


@lru_cache(maxsize=16)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
