"""The torch module of Mamba-3."""

from __future__ import annotations

import torch
from hybrid_nas_kernels import mamba3 as scan_op
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels.linear_step import linear_step_parts
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_nas.mixer_module import (
    Gain,
    LayerCache,
    MambaInit,
    MixerModule,
    draw_linear,
    normed,
    project,
    time_step_bias,
)
from hybrid_nas.recurrent import Mamba3

A_LEAST = 1e-4
Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class Mamba3Module(MixerModule):
    """Mamba-3 [arXiv:2603.15569]. `in_proj` rows are z, x, B, C, dt, A, trapezoid, angles, in mamba-ssm's order."""

    def __init__(self, mixer: Mamba3, width: int) -> None:
        super().__init__()
        self.mixer = m = mixer
        shared = m.groups * m.d_state
        self.split = [m.d_ssm, m.d_ssm, shared, shared, m.heads, m.heads, m.heads, m.pairs]
        self.in_proj = nn.Linear(width, sum(self.split), bias=False)
        self.dt_bias = nn.Parameter(torch.empty(m.heads))
        self.B_bias = nn.Parameter(torch.empty(m.heads, m.d_state))
        self.C_bias = nn.Parameter(torch.empty(m.heads, m.d_state))
        self.B_norm = Gain(m.d_state)
        self.C_norm = Gain(m.d_state)
        self.D = nn.Parameter(torch.empty(m.heads))
        self.out_proj = nn.Linear(m.d_ssm, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        z, values = self._selected(x, norm)
        out: Tensor = self.out_proj(scan_op.mamba3(*values).flatten(-2) * F.silu(z))
        return out

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """The phases, the state, and the last token's key and value, whatever the context."""
        del context
        m = self.mixer
        shapes = {"phase": (m.pairs,), "state": (m.head_dim, m.d_state), "key": (m.d_state,), "value": (m.head_dim,)}
        return {n: torch.zeros(batch, m.heads, *shape, device=device, dtype=dtype) for n, shape in shapes.items()}

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        del position
        z, values = self._selected(x, norm)
        y = scan_op.mamba3_step(*values, cache["phase"], cache["state"], cache["key"], cache["value"])
        return linear_step_parts(y.flatten(-2) * F.silu(z), self.out_proj.weight)

    def _selected(self, x: Tensor, norm: Tensor | None) -> tuple[Tensor, Arguments]:
        """The gate, and the arguments of the scan. x (..., width)."""
        m = self.mixer
        z, u, B, C, dt, A, trap, angle = project(x, norm, self.in_proj.weight, self.split)
        B, C = (
            normed(value.reshape(*value.shape[:-1], m.groups, m.d_state), gain.weight)
            for value, gain in ((B, self.B_norm), (C, self.C_norm))
        )
        dt = F.softplus(dt + self.dt_bias)
        decay = -F.softplus(A).clamp(min=A_LEAST)
        u = u.reshape(*u.shape[:-1], m.heads, m.head_dim)
        return z, (u, dt, decay * dt, trap, B, C, self.B_bias, self.C_bias, angle, self.D)

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """Time steps as Mamba-2's; biases and D are 1. A depends on the token, so `mamba_init` has no part here."""
        del mamba_init
        m = self.mixer
        draw_linear(self.in_proj.weight, generator)
        draw_linear(self.out_proj.weight, generator)
        self.out_proj.weight.data.mul_(residual_scale)
        uniform = torch.empty(m.heads, dtype=torch.float64).uniform_(generator=generator)
        self.dt_bias.data.copy_(time_step_bias(uniform))
        for parameter in (self.B_bias, self.C_bias, self.D):
            parameter.data.fill_(1.0)

    def implementations(self, device: torch.device) -> dict[str, str]:
        return {"norm_linear": norm_linear_op.choose(device)[0], "mamba3": scan_op.choose(device)[0]}
