"""Matrix products of weights and tokens on the CPU, through the faster of torch's two libraries.

torch sends float32 products to MKL, which runs AVX2 code on CPUs that are not Intel's: on an AMD EPYC with AVX-512 it
reaches 106 GFLOP/s a core at the proxy's shapes, and oneDNN, which torch carries as well, 215. Without AVX-512 the two
are equal. Each product is one of three: of the forward pass, of the input's gradient, of the weight's gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 32
"""Fewer rows than this, as in decoding, leave no time to reorder the weights."""

_ONEDNN = (
    torch.backends.cpu.get_cpu_capability() == "AVX512"
    and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x (..., k) times weight (n, k) transposed: (..., n). Not differentiable: for the inside of a backward by hand."""
    if _ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() >= FEW * x.shape[-1]:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return y
    return torch.nn.functional.linear(x, weight)


def input_gradient(dy: Tensor, weight: Tensor) -> Tensor:
    """dy (rows, n) times weight (n, k): (rows, k)."""
    return linear(dy, weight.t())


def weight_gradient(dy: Tensor, x: Tensor) -> Tensor:
    """dy (rows, n) transposed times x (rows, k): (n, k). oneDNN copies what it reads across its rows: the narrower."""
    if x.shape[1] < dy.shape[1]:
        return linear(x.t(), dy.t()).t()
    return linear(dy.t(), x.t())
