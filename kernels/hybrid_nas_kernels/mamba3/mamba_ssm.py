"""The scan of Mamba-3 by mamba-ssm's Triton kernels, for a GPU."""

from __future__ import annotations

from mamba_ssm.ops.triton.mamba3.mamba3_siso_combined import mamba3_siso_combined
from torch import Tensor


def mamba3_mamba_ssm(
    x: Tensor,
    dt: Tensor,
    log_decay: Tensor,
    trap: Tensor,
    B: Tensor,
    C: Tensor,
    B_bias: Tensor,
    C_bias: Tensor,
    angle: Tensor,
    D: Tensor,
) -> Tensor:
    """As `mamba3`, in bfloat16. The kernels want time steps as (batch, heads, tokens), and decays, biases and D in
    float32."""
    steps, decay, mix = (value.transpose(1, 2).contiguous() for value in (dt.float(), log_decay.float(), trap))
    y: Tensor = mamba3_siso_combined(
        Q=C.contiguous(),
        K=B.contiguous(),
        V=x.contiguous(),
        ADT=decay,
        DT=steps,
        Trap=mix,
        Q_bias=C_bias.float().contiguous(),
        K_bias=B_bias.float().contiguous(),
        Angles=angle.float()[:, :, None].expand(-1, -1, x.shape[2], -1).contiguous(),
        D=D.float(),
    )
    return y.to(x.dtype)
