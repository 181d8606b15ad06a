"""Gate and RMSNorm in groups as one Triton kernel each way, before torch's linear map."""

from __future__ import annotations

from torch import Tensor

from hybrid_nas_kernels.linear_step import linear_step_parts
from hybrid_nas_kernels.norm_linear.triton_kernels import gated_rms_norm


def gated_norm_linear_triton(y: Tensor, z: Tensor, norm: Tensor, weight: Tensor, groups: int, eps: float) -> Tensor:
    """As `gated_norm_linear`, for float32 and bfloat16; `norm` may be float32 beside bfloat16 tokens. In decoding
    possibly parts of the output, as `linear_step_parts` leaves them."""
    return linear_step_parts(gated_rms_norm(y, z, norm, groups, eps), weight)
