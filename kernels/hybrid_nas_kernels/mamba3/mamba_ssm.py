"""The scan of Mamba-3 by mamba-ssm's Triton kernels, for a GPU."""

from __future__ import annotations

from torch import Tensor

from hybrid_nas_kernels.dispatch import package


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
    """As `mamba3`. The kernels want time steps as (batch, heads, tokens), and decays and angles in float32."""
    package("mamba_ssm")
    scan = package("mamba_ssm.ops.triton.mamba3.mamba3_siso_combined").mamba3_siso_combined
    steps, decay, mix = (value.transpose(1, 2).contiguous() for value in (dt.float(), log_decay.float(), trap))
    y: Tensor = scan(
        Q=C.contiguous(),
        K=B.contiguous(),
        V=x.contiguous(),
        ADT=decay,
        DT=steps,
        Trap=mix,
        Q_bias=C_bias,
        K_bias=B_bias,
        Angles=angle.float()[:, :, None].expand(-1, -1, x.shape[2], -1).contiguous(),
        D=D,
    )
    return y.to(x.dtype)
