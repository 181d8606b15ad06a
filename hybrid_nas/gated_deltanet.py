"""The torch module of Gated DeltaNet."""

from __future__ import annotations

import torch
from hybrid_nas_kernels import causal_conv1d as conv_op
from hybrid_nas_kernels import gated_delta as delta_op
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels.linear_step import linear_step
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_nas.mixer_module import (
    Gain,
    LayerCache,
    MambaInit,
    MixerModule,
    decay_log,
    draw_linear,
    draw_short_convolution,
    normed,
    project,
    time_step_bias,
)
from hybrid_nas.recurrent import GatedDeltaNet

LENGTH_EPS = 1e-6


class GatedDeltaNetModule(MixerModule):
    """Gated DeltaNet [arXiv:2412.06464], its weights named as flash-linear-attention's. The norm of a head comes before
    its gate; the short convolutions have no bias."""

    def __init__(self, mixer: GatedDeltaNet, width: int) -> None:
        super().__init__()
        self.mixer = m = mixer
        self.split = [2 * m.keys + m.values, m.values, m.heads, m.heads]
        self.q_proj = nn.Linear(width, m.keys, bias=False)
        self.k_proj = nn.Linear(width, m.keys, bias=False)
        self.v_proj = nn.Linear(width, m.values, bias=False)
        self.g_proj = nn.Linear(width, m.values, bias=False)
        self.a_proj = nn.Linear(width, m.heads, bias=False)
        self.b_proj = nn.Linear(width, m.heads, bias=False)
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (
            nn.Conv1d(channels, channels, m.conv_kernel, groups=channels, bias=False)
            for channels in (m.keys, m.keys, m.values)
        )
        self.A_log = nn.Parameter(torch.empty(m.heads))
        self.dt_bias = nn.Parameter(torch.empty(m.heads))
        self.o_norm = Gain(m.value_dim)
        self.o_proj = nn.Linear(m.values, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        m = self.mixer
        qkv, gate, a, b = self._project(x, norm)
        taps = self._taps()
        q, k, v = conv_op.causal_conv1d(qkv, taps, taps.new_zeros(len(taps)), (m.keys, m.keys, m.values))
        y, _ = delta_op.gated_delta(*self._heads(q, k, v), *self._gates(a, b))
        return self._close(y, gate)

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """The last `conv_kernel` inputs of the convolutions and the state, whatever the context."""
        del context
        m = self.mixer
        return {
            "conv": torch.zeros(batch, 2 * m.keys + m.values, m.conv_kernel, device=device, dtype=dtype),
            "state": torch.zeros(batch, m.heads, m.key_dim, m.value_dim, device=device, dtype=dtype),
        }

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        del position
        m = self.mixer
        qkv, gate, a, b = self._project(x, norm)
        taps = self._taps()
        qkv = conv_op.causal_conv1d_step(qkv, cache["conv"], taps, taps.new_zeros(len(taps)))
        q, k, v = torch.split(qkv, [m.keys, m.keys, m.values], dim=-1)
        y = delta_op.gated_delta_step(*self._heads(q, k, v), *self._gates(a, b), cache["state"])
        return self._close(y, gate)

    def _project(self, x: Tensor, norm: Tensor | None) -> tuple[Tensor, ...]:
        """Queries, keys and values together, the gate, and the numbers of decay and writing strength."""
        parts = (self.q_proj, self.k_proj, self.v_proj, self.g_proj, self.a_proj, self.b_proj)
        return project(x, norm, torch.cat([part.weight for part in parts]), self.split)

    def _taps(self) -> Tensor:
        return torch.cat([c.weight.squeeze(1) for c in (self.q_conv1d, self.k_conv1d, self.v_conv1d)])

    def _heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of unit length, the queries divided by the root of their dimension, and values, by head."""
        m = self.mixer
        q, k = (value.reshape(*value.shape[:-1], m.heads, m.key_dim) for value in (q, k))
        q, k = (value * (value.square().sum(-1, keepdim=True) + LENGTH_EPS).rsqrt() for value in (q, k))
        return q * m.key_dim**-0.5, k, v.reshape(*v.shape[:-1], m.heads, m.value_dim)

    def _gates(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The log decay, and how strongly a token writes."""
        return -torch.exp(self.A_log) * F.softplus(a + self.dt_bias), torch.sigmoid(b)

    def _close(self, y: Tensor, gate: Tensor) -> Tensor:
        return linear_step(normed(y, self.o_norm.weight).flatten(-2) * F.silu(gate), self.o_proj.weight)

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """Decays and time steps as Mamba-2's, as published."""
        for part in (self.q_proj, self.k_proj, self.v_proj, self.g_proj, self.a_proj, self.b_proj, self.o_proj):
            draw_linear(part.weight, generator)
        self.o_proj.weight.data.mul_(residual_scale)
        for convolution in (self.q_conv1d, self.k_conv1d, self.v_conv1d):
            draw_short_convolution(convolution, generator)
        uniform = torch.empty(2, self.mixer.heads, dtype=torch.float64).uniform_(generator=generator)
        self.A_log.data.copy_(decay_log(uniform[0], mamba_init))
        self.dt_bias.data.copy_(time_step_bias(uniform[1]))

    def implementations(self, device: torch.device) -> dict[str, str]:
        return {
            "norm_linear": norm_linear_op.choose(device)[0],
            "causal_conv1d": conv_op.choose(device)[0],
            "gated_delta": delta_op.choose(device)[0],
        }
