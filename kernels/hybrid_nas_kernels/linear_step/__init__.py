"""A linear map of the few rows that decoding has. README.md has the kernel and when it is taken."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_nas_kernels.dispatch import deferred, pick, runs_triton, triton_or
from hybrid_nas_kernels.linear_step.blocks import ROWS, Blocks, blocks_of, evidence, too_old
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
    left: bool = False,
    weight_dtype: torch.dtype | None = None,
) -> tuple[str, str]:
    """The implementation that "auto" takes for so many rows and a weight (outputs, channels), and why; by default for
    the classifier of the paper's 1B models. `aligned`: every row begins at a multiple of 16 bytes; `left`: parts are
    left to be added by who reads them; `weight_dtype`: the weight's where it is not `dtype`, that of x."""
    name, reason = triton_or(device, lambda: ("reference", f"there is no other on {device.type}"), dtype)
    if name != "triton":
        return name, reason
    why = _why_torch(device, dtype, rows, aligned, weight_dtype or dtype)
    if why:
        return "reference", f"cuBLAS: {why}"
    if blocks_of(outputs, channels, left) is None:
        return "reference", f"cuBLAS was faster, or ours was not timed, at {outputs:,} x {channels:,}"
    return "triton", evidence(rows, outputs, channels, left)


def _why_torch(device: torch.device, dtype: torch.dtype, rows: int, aligned: bool, weight_dtype: torch.dtype) -> str:
    """What, but for the shape, keeps the kernel from a product; empty where nothing does."""
    if torch.version.hip is not None:
        return "ours was timed on NVIDIA's GPUs alone"
    if old := too_old():
        return old
    major, minor = _capability(device)
    if major != MEASURED:
        return f"ours was timed at compute capability {MEASURED} alone, not at {major}.{minor}"
    if weight_dtype != dtype:
        return f"ours has one dtype for both, found {dtype} and {weight_dtype}".replace("torch.", "")
    if dtype != torch.bfloat16:
        return f"ours was timed in bfloat16 alone, not in {dtype}".replace("torch.", "")
    if rows > ROWS:
        return f"ours has up to {ROWS} rows, found {rows}"
    return "" if aligned else "ours was timed where rows begin at multiples of 16 bytes"


def linear_step(x: Tensor, weight: Tensor, *, implementation: str = "auto") -> Tensor:
    """x (rows, channels) times weight (outputs, channels) transposed, for the few rows of a decoding step: (rows,
    outputs). No gradients but the reference's.

    What is no decoding step, because it has gradients or tokens in sequences (..., tokens, channels), is torch's own.
    """
    if implementation == "auto" and (x.ndim != 2 or weight.ndim != 2 or torch.is_grad_enabled()):
        return F.linear(x, weight)
    run = pick("linear_step", implementation, IMPLEMENTATIONS, lambda: _choose(x, weight))
    return run(x, weight)


def linear_step_parts(x: Tensor, weight: Tensor) -> Tensor:
    """As `linear_step`; where the Triton way cuts the channels into parts, those (parts, rows, outputs), float32, which
    are still to be added, as `add_rms_norm` does with the sum that it takes anyway."""
    if x.ndim != 2 or weight.ndim != 2 or torch.is_grad_enabled():
        return F.linear(x, weight)
    return pick("linear_step", "auto", PARTS, lambda: _choose(x, weight, left=True))(x, weight)


def whole(y: Tensor, like: Tensor) -> Tensor:
    """What `linear_step_parts` left, its parts added, in the dtype of `like`, which has the dimensions of a whole."""
    if y.ndim <= like.ndim:
        return y
    return _add_parts(y, like.dtype) if runs_triton(y) else y.sum(0).to(like.dtype)


_add_parts = deferred("hybrid_nas_kernels.linear_step.triton_step", "add_parts", needs="triton")


def _choose(x: Tensor, weight: Tensor, left: bool = False) -> tuple[str, str]:
    aligned = _aligned(x) and _aligned(weight)
    return choose(x.device, x.dtype, len(x), len(weight), weight.shape[1], aligned, left, weight.dtype)


def _aligned(rows: Tensor) -> bool:
    """By where they begin in their storage, whose own beginning torch aligns; while torch.compile traces, which sees no
    beginnings, by the steps between rows alone. Where that is wrong it costs time and nothing else."""
    step, along = rows.stride()
    begins = 0 if torch.compiler.is_compiling() else rows.storage_offset()
    return along == 1 and all((n * rows.element_size()) % 16 == 0 for n in (step, begins))


@lru_cache(maxsize=16)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)
