"""The torch module of Mamba-1."""

from __future__ import annotations

import torch
from hybrid_nas_kernels import causal_conv1d as conv_op
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels import selective_scan as scan_op
from hybrid_nas_kernels.linear_step import linear_step_parts
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_nas.mixer_module import (
    Gain,
    LayerCache,
    MambaInit,
    MixerModule,
    draw_linear,
    draw_short_convolution,
    normed,
    project,
    time_step_bias,
)
from hybrid_nas.recurrent import Mamba1


class Mamba1Module(MixerModule):
    """Mamba [arXiv:2312.00752]. `in_proj` rows are x, z; `x_proj` rows are dt (through `dt_proj`), B, C."""

    def __init__(self, mixer: Mamba1, width: int) -> None:
        super().__init__()
        self.mixer = m = mixer
        self.in_proj = nn.Linear(width, 2 * m.d_ssm, bias=False)
        self.conv1d = nn.Conv1d(m.d_ssm, m.d_ssm, m.conv_kernel, groups=m.d_ssm)
        self.x_proj = nn.Linear(m.d_ssm, m.dt_rank + 2 * m.d_state, bias=False)
        self.dt_proj = nn.Linear(m.dt_rank, m.d_ssm)
        if m.norms:
            self.dt_norm, self.B_norm, self.C_norm = (Gain(n) for n in (m.dt_rank, m.d_state, m.d_state))
        self.A_log = nn.Parameter(torch.empty(m.d_ssm, m.d_state))
        self.D = nn.Parameter(torch.empty(m.d_ssm))
        self.out_proj = nn.Linear(m.d_ssm, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        m = self.mixer
        u, z = project(x, norm, self.in_proj.weight, [m.d_ssm, m.d_ssm])
        (u,) = conv_op.causal_conv1d(u, self.conv1d.weight.squeeze(1), _bias(self.conv1d), (m.d_ssm,))
        y, _ = scan_op.selective_scan(u, *self._selected(u))
        out: Tensor = self.out_proj(y * F.silu(z))
        return out

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """The last `conv_kernel` inputs of the convolution and the state, whatever the context."""
        del context
        m = self.mixer
        return {
            "conv": torch.zeros(batch, m.d_ssm, m.conv_kernel, device=device, dtype=dtype),
            "state": torch.zeros(batch, m.d_ssm, m.d_state, device=device, dtype=dtype),
        }

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        del position
        m = self.mixer
        u, z = project(x, norm, self.in_proj.weight, [m.d_ssm, m.d_ssm])
        u = conv_op.causal_conv1d_step(u, cache["conv"], self.conv1d.weight.squeeze(1), _bias(self.conv1d))
        y = scan_op.selective_scan_step(u, *self._selected(u), cache["state"])
        return linear_step_parts(y * F.silu(z), self.out_proj.weight)

    def _selected(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """dt, A, B, C, D: what the scan does with u, as u itself selects it."""
        m = self.mixer
        dt, B, C = torch.split(self.x_proj(u), [m.dt_rank, m.d_state, m.d_state], dim=-1)
        if m.norms:
            pairs = ((dt, self.dt_norm), (B, self.B_norm), (C, self.C_norm))
            dt, B, C = (normed(value, gain.weight) for value, gain in pairs)
        dt = F.softplus(F.linear(dt, self.dt_proj.weight) + _bias(self.dt_proj))  # the bias may be of a wider dtype
        return dt, -torch.exp(self.A_log), B, C, self.D

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """A is -1 .. -d_state in every channel, and `dt_proj` begins as the time steps of Mamba-2 [arXiv:2312.00752,
        section 3.6]; the paper's other range of A is Mamba-2's own, so `mamba_init` has no part here."""
        del mamba_init
        m = self.mixer
        for projection in (self.in_proj, self.x_proj, self.out_proj):
            draw_linear(projection.weight, generator)
        self.out_proj.weight.data.mul_(residual_scale)
        draw_short_convolution(self.conv1d, generator)
        bound = m.dt_rank**-0.5
        self.dt_proj.weight.data.uniform_(-bound, bound, generator=generator)
        uniform = torch.empty(m.d_ssm, dtype=torch.float64).uniform_(generator=generator)
        _bias(self.dt_proj).data.copy_(time_step_bias(uniform))
        self.A_log.data.copy_(torch.arange(1, m.d_state + 1).log().expand(m.d_ssm, -1))
        self.D.data.fill_(1.0)

    def implementations(self, device: torch.device) -> dict[str, str]:
        return {
            "norm_linear": norm_linear_op.choose(device)[0],
            "causal_conv1d": conv_op.choose(device)[0],
            "selective_scan": scan_op.choose(device)[0],
        }


def _bias(module: nn.Conv1d | nn.Linear) -> Tensor:
    assert module.bias is not None
    return module.bias
