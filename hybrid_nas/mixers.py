"""The sequence mixers as torch modules, one class a description. A mixer is a description in `architecture`, a cost in
`cost`, a module here and its line in `MODULES`.

Weights are named and laid out as the published Mamba-2 and Llama-style models name theirs, so an export is a copy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from hybrid_nas_kernels import attention as attention_op
from hybrid_nas_kernels import causal_conv1d as conv_op
from hybrid_nas_kernels import gated_norm_linear as gated_norm_op
from hybrid_nas_kernels import mamba2 as mamba2_op
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels import rope as rope_op
from hybrid_nas_kernels import ssd as ssd_op
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_nas.architecture import Attention, Mamba2, Mixer

NORM_EPS = 1e-5
MambaInit = Literal["paper", "original"]
LayerCache = dict[str, Tensor]


class MixerModule(nn.Module, ABC):
    """(batch, tokens, width) -> (batch, tokens, width), causal; and the same a token at a time with a cache."""

    @abstractmethod
    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        """The mixer of x, or of rms_norm(x) * norm where `norm` (width,) is given, as in a block."""

    @abstractmethod
    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """What decoding up to `context` tokens keeps, zeroed. Its bytes are those of `cost`."""

    @abstractmethod
    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        """`forward` for token number `position` alone, x (batch, width); updates `cache` in place."""

    @abstractmethod
    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """Draw the initial weights. `residual_scale` multiplies those that write to the residual stream."""

    @abstractmethod
    def implementations(self, device: torch.device) -> dict[str, str]:
        """operation -> the implementation that `forward` runs on `device`."""


class AttentionModule(MixerModule):
    """Grouped-query attention, RoPE on halves of each head (as Llama) or no position encoding."""

    def __init__(self, mixer: Attention, width: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.q_proj = nn.Linear(width, mixer.heads * mixer.head_dim, bias=False)
        self.k_proj = nn.Linear(width, mixer.kv_heads * mixer.head_dim, bias=False)
        self.v_proj = nn.Linear(width, mixer.kv_heads * mixer.head_dim, bias=False)
        self.o_proj = nn.Linear(mixer.heads * mixer.head_dim, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        batch, tokens, _ = x.shape
        m = self.mixer
        q, k, v = self._project(x.reshape(batch * tokens, -1), norm, batch, tokens, 0)
        y = attention_op.attention(q, k, v, window=m.window, sinks=m.sinks)
        out: Tensor = self.o_proj(y.reshape(batch, tokens, -1))
        return out

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Keys (already turned by RoPE) and values. A window keeps the sinks and then a ring of `window` slots."""
        m = self.mixer
        slots = context if m.window is None else min(context, m.window + m.sinks)
        shape = (batch, slots, m.kv_heads, m.head_dim)
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("keys", "values")}

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        m = self.mixer
        q, k, v = self._project(x, norm, len(x), 1, position)
        keys, values = cache["keys"], cache["values"]
        slot = position
        if m.window is not None and position >= m.sinks:
            slot = m.sinks + (position - m.sinks) % m.window
        keys[:, slot] = k[:, 0]
        values[:, slot] = v[:, 0]
        filled = min(position + 1, keys.shape[1])
        y = attention_op.attention_step(q[:, 0], keys[:, :filled], values[:, :filled])
        out: Tensor = self.o_proj(y.flatten(1))
        return out

    def _project(
        self, x: Tensor, norm: Tensor | None, batch: int, tokens: int, start: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned by RoPE, and values, of tokens from position `start`: (batch, tokens, heads, _)."""
        m = self.mixer
        turned = m.heads + m.kv_heads
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        qk, v = _project(x, norm, weight, [turned * m.head_dim, m.kv_heads * m.head_dim])
        qk = qk.view(batch, tokens, turned, m.head_dim)
        if m.rope_theta is not None:
            qk = rope_op.rope(qk, *rope_op.rope_table(m.rope_theta, m.head_dim, start, tokens, x.device))
        q, k = torch.split(qk, [m.heads, m.kv_heads], dim=2)
        return q, k, v.view(batch, tokens, m.kv_heads, m.head_dim)

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        del mamba_init
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            draw_linear(projection.weight, generator)
        self.o_proj.weight.data.mul_(residual_scale)

    def implementations(self, device: torch.device) -> dict[str, str]:
        chosen = {
            "norm_linear": norm_linear_op.choose(device)[0],
            "attention": attention_op.choose(device)[0],
        }
        return chosen if self.mixer.rope_theta is None else {**chosen, "rope": rope_op.choose(device)[0]}


class Mamba2Module(MixerModule):
    """Mamba-2 [arXiv:2405.21060]. `in_proj` rows are z, x, B, C, dt; the gate comes before the grouped norm."""

    def __init__(self, mixer: Mamba2, width: int) -> None:
        super().__init__()
        self.mixer = mixer
        m = mixer
        self.split = [m.d_ssm, m.conv_channels, m.heads]
        self.in_proj = nn.Linear(width, sum(self.split), bias=False)
        self.conv1d = nn.Conv1d(m.conv_channels, m.conv_channels, m.conv_kernel, groups=m.conv_channels)
        self.A_log = nn.Parameter(torch.empty(m.heads))
        self.D = nn.Parameter(torch.empty(m.heads))
        self.dt_bias = nn.Parameter(torch.empty(m.heads))
        self.norm = Gain(m.d_ssm)
        self.out_proj = nn.Linear(m.d_ssm, width, bias=False)

    def forward(self, x: Tensor, norm: Tensor | None = None) -> Tensor:
        m = self.mixer
        if norm is not None:
            return mamba2_op.mamba2(
                x,
                norm,
                self.in_proj.weight,
                self.conv1d.weight.squeeze(1),
                self._conv_bias(),
                self.dt_bias,
                self.A_log,
                self.D,
                self.norm.weight,
                self.out_proj.weight,
                groups=m.groups,
                eps=NORM_EPS,
            )
        batch, tokens, _ = x.shape
        z, xBC, dt = _project(x, norm, self.in_proj.weight, self.split)
        parts = (m.d_ssm, 2 * m.groups * m.d_state)
        u, BC = conv_op.causal_conv1d(xBC, self.conv1d.weight.squeeze(1), self._conv_bias(), parts)
        B, C = torch.chunk(BC, 2, dim=-1)
        y, _ = ssd_op.ssd(
            u.view(batch, tokens, m.heads, m.head_dim),
            F.softplus(dt + self.dt_bias),
            -torch.exp(self.A_log),
            B.view(batch, tokens, m.groups, m.d_state),
            C.view(batch, tokens, m.groups, m.d_state),
            self.D,
        )
        return self._close(y.reshape(batch, tokens, m.d_ssm), z)

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """The last `conv_kernel` inputs of the convolution and the state, whatever the context."""
        del context
        m = self.mixer
        return {
            "conv": torch.zeros(batch, m.conv_channels, m.conv_kernel, device=device, dtype=dtype),
            "state": torch.zeros(batch, m.heads, m.head_dim, m.d_state, device=device, dtype=dtype),
        }

    def step(self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None = None) -> Tensor:
        del position
        batch = x.shape[0]
        m = self.mixer
        z, xBC, dt = _project(x, norm, self.in_proj.weight, self.split)
        xBC = conv_op.causal_conv1d_step(xBC, cache["conv"], self.conv1d.weight.squeeze(1), self._conv_bias())
        u, B, C = torch.split(xBC, [m.d_ssm, m.groups * m.d_state, m.groups * m.d_state], dim=-1)
        y = ssd_op.ssd_step(
            u.view(batch, m.heads, m.head_dim),
            F.softplus(dt + self.dt_bias),
            -torch.exp(self.A_log),
            B.view(batch, m.groups, m.d_state),
            C.view(batch, m.groups, m.d_state),
            self.D,
            cache["state"],
        )
        return self._close(y.reshape(batch, m.d_ssm), z)

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """A uniform in [0.01, 2] ("paper" [arXiv:2510.04800]) or [1, 16] ("original" [arXiv:2405.21060]). `dt_bias` is
        the inverse softplus of a log-uniform time step in [0.001, 0.1], at least 1e-4."""
        m = self.mixer
        draw_linear(self.in_proj.weight, generator)
        draw_linear(self.out_proj.weight, generator)
        self.out_proj.weight.data.mul_(residual_scale)
        bound = m.conv_kernel**-0.5
        self.conv1d.weight.data.uniform_(-bound, bound, generator=generator)
        self._conv_bias().data.uniform_(-bound, bound, generator=generator)
        low, high = {"paper": (0.01, 2.0), "original": (1.0, 16.0)}[mamba_init]
        uniform = torch.empty(2, m.heads, dtype=torch.float64).uniform_(generator=generator)
        self.A_log.data.copy_((low + (high - low) * uniform[0]).log())
        dt = torch.exp(math.log(1e-3) + (math.log(1e-1) - math.log(1e-3)) * uniform[1]).clamp(min=1e-4)
        self.dt_bias.data.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.D.data.fill_(1.0)
        self.norm.weight.data.fill_(1.0)

    def implementations(self, device: torch.device) -> dict[str, str]:
        whole = mamba2_op.choose(device)[0]
        if whole != "separate":
            return {"mamba2": whole}
        return {
            "mamba2": whole,
            "norm_linear": norm_linear_op.choose(device)[0],
            "causal_conv1d": conv_op.choose(device)[0],
            "ssd": ssd_op.choose(device)[0],
            "gated_norm_linear": gated_norm_op.choose(device)[0],
        }

    def _close(self, y: Tensor, z: Tensor) -> Tensor:
        return gated_norm_op.gated_norm_linear(
            y, z, self.norm.weight, self.out_proj.weight, groups=self.mixer.groups, eps=NORM_EPS
        )

    def _conv_bias(self) -> Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias


class Gain(nn.Module):
    """The weight of an RMSNorm. Its arithmetic is part of the operation that reads the norm's output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))


MODULES: dict[type[Mixer], type[MixerModule]] = {Attention: AttentionModule, Mamba2: Mamba2Module}


def draw_linear(weight: Tensor, generator: torch.Generator) -> None:
    """Normal of standard deviation fan_in ** -0.5: unit inputs give unit outputs at every width."""
    weight.data.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)


def _project(x: Tensor, norm: Tensor | None, weight: Tensor, parts: list[int]) -> tuple[Tensor, ...]:
    if norm is None:
        return torch.split(F.linear(x, weight), parts, dim=-1)
    return norm_linear_op.norm_linear(x, norm, weight, parts, eps=NORM_EPS)
