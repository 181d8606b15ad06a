"""The sequence mixers as torch modules, one class a description. A mixer is a description in `architecture`, a cost in
`cost`, a module here and its line in `MODULES`.

Weights are named and laid out as the published Mamba-2 and Llama-style models name theirs, so an export is a copy.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Literal

import torch
from hybrid_nas_kernels.attention import attention, attention_step
from hybrid_nas_kernels.attention import choose as choose_attention
from hybrid_nas_kernels.causal_conv1d import causal_conv1d, causal_conv1d_step
from hybrid_nas_kernels.causal_conv1d import choose as choose_conv
from hybrid_nas_kernels.ssd import choose as choose_ssd
from hybrid_nas_kernels.ssd import ssd, ssd_step
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_nas.architecture import Attention, Mamba2, Mixer

NORM_EPS = 1e-5
MambaInit = Literal["paper", "original"]
LayerCache = dict[str, Tensor]


class MixerModule(nn.Module, ABC):
    """(batch, tokens, width) -> (batch, tokens, width), causal; and the same a token at a time with a cache."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """What decoding up to `context` tokens keeps, zeroed. Its bytes are those of `cost`."""

    @abstractmethod
    def step(self, x: Tensor, cache: LayerCache, position: int) -> Tensor:
        """Token number `position`, x (batch, width); updates `cache` in place."""

    @abstractmethod
    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        """Draw the initial weights. `residual_scale` multiplies those that write to the residual stream."""

    @abstractmethod
    def implementations(self) -> dict[str, str]:
        """operation -> the implementation that `forward` runs."""


class AttentionModule(MixerModule):
    """Grouped-query attention, RoPE on halves of each head (as Llama) or no position encoding."""

    def __init__(self, mixer: Attention, width: int) -> None:
        super().__init__()
        self.mixer = mixer
        self.q_proj = nn.Linear(width, mixer.heads * mixer.head_dim, bias=False)
        self.k_proj = nn.Linear(width, mixer.kv_heads * mixer.head_dim, bias=False)
        self.v_proj = nn.Linear(width, mixer.kv_heads * mixer.head_dim, bias=False)
        self.o_proj = nn.Linear(mixer.heads * mixer.head_dim, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        m = self.mixer
        q = self.q_proj(x).view(batch, tokens, m.heads, m.head_dim)
        k = self.k_proj(x).view(batch, tokens, m.kv_heads, m.head_dim)
        v = self.v_proj(x).view(batch, tokens, m.kv_heads, m.head_dim)
        if m.rope_theta is not None:
            cos, sin = _rope_table(m.rope_theta, m.head_dim, _table_length(tokens), x.device)
            q, k = (_rotate(value, cos[:tokens], sin[:tokens]) for value in (q, k))
        y = attention(q, k, v, window=m.window, sinks=m.sinks)
        out: Tensor = self.o_proj(y.reshape(batch, tokens, -1))
        return out

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Keys (already turned by RoPE) and values. A window keeps the sinks and then a ring of `window` slots."""
        m = self.mixer
        slots = context if m.window is None else min(context, m.window + m.sinks)
        shape = (batch, slots, m.kv_heads, m.head_dim)
        return {name: torch.zeros(shape, device=device, dtype=dtype) for name in ("keys", "values")}

    def step(self, x: Tensor, cache: LayerCache, position: int) -> Tensor:
        batch = x.shape[0]
        m = self.mixer
        q = self.q_proj(x).view(batch, 1, m.heads, m.head_dim)
        k = self.k_proj(x).view(batch, 1, m.kv_heads, m.head_dim)
        v = self.v_proj(x).view(batch, m.kv_heads, m.head_dim)
        if m.rope_theta is not None:
            cos, sin = _rope_table(m.rope_theta, m.head_dim, _table_length(position + 1), x.device)
            q, k = (_rotate(value, cos[position : position + 1], sin[position : position + 1]) for value in (q, k))
        keys, values = cache["keys"], cache["values"]
        slot = position
        if m.window is not None and position >= m.sinks:
            slot = m.sinks + (position - m.sinks) % m.window
        keys[:, slot] = k[:, 0]
        values[:, slot] = v
        filled = min(position + 1, keys.shape[1])
        out: Tensor = self.o_proj(attention_step(q[:, 0], keys[:, :filled], values[:, :filled]).reshape(batch, -1))
        return out

    def reset(self, generator: torch.Generator, residual_scale: float, mamba_init: MambaInit) -> None:
        del mamba_init
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            draw_linear(projection.weight, generator)
        self.o_proj.weight.data.mul_(residual_scale)

    def implementations(self) -> dict[str, str]:
        return {"attention": choose_attention()[0]}


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
        self.norm = GatedRMSNorm(m.d_ssm, m.groups)
        self.out_proj = nn.Linear(m.d_ssm, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        m = self.mixer
        z, xBC, dt = torch.split(self.in_proj(x), self.split, dim=-1)
        xBC = causal_conv1d(xBC, self.conv1d.weight.squeeze(1), self._conv_bias())
        u, B, C = torch.split(xBC, [m.d_ssm, m.groups * m.d_state, m.groups * m.d_state], dim=-1)
        y, _ = ssd(
            u.view(batch, tokens, m.heads, m.head_dim),
            F.softplus(dt + self.dt_bias),
            -torch.exp(self.A_log),
            B.view(batch, tokens, m.groups, m.d_state),
            C.view(batch, tokens, m.groups, m.d_state),
            self.D,
        )
        out: Tensor = self.out_proj(self.norm(y.reshape(batch, tokens, m.d_ssm), z))
        return out

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """The last `conv_kernel` inputs of the convolution and the state, whatever the context."""
        del context
        m = self.mixer
        return {
            "conv": torch.zeros(batch, m.conv_channels, m.conv_kernel, device=device, dtype=dtype),
            "state": torch.zeros(batch, m.heads, m.head_dim, m.d_state, device=device, dtype=dtype),
        }

    def step(self, x: Tensor, cache: LayerCache, position: int) -> Tensor:
        del position
        batch = x.shape[0]
        m = self.mixer
        z, xBC, dt = torch.split(self.in_proj(x), self.split, dim=-1)
        xBC = causal_conv1d_step(xBC, cache["conv"], self.conv1d.weight.squeeze(1), self._conv_bias())
        u, B, C = torch.split(xBC, [m.d_ssm, m.groups * m.d_state, m.groups * m.d_state], dim=-1)
        y = ssd_step(
            u.view(batch, m.heads, m.head_dim),
            F.softplus(dt + self.dt_bias),
            -torch.exp(self.A_log),
            B.view(batch, m.groups, m.d_state),
            C.view(batch, m.groups, m.d_state),
            self.D,
            cache["state"],
        )
        out: Tensor = self.out_proj(self.norm(y.reshape(batch, m.d_ssm), z))
        return out

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

    def implementations(self) -> dict[str, str]:
        return {
            "ssd": choose_ssd()[0],
            "causal_conv1d": choose_conv()[0],
        }

    def _conv_bias(self) -> Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias


class GatedRMSNorm(nn.Module):
    """RMSNorm of y * silu(z), over each of `groups` equal parts of the channels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(channels))

    def forward(self, y: Tensor, z: Tensor) -> Tensor:
        gated = y * F.silu(z)
        if self.groups == 1:
            return F.rms_norm(gated, self.weight.shape, self.weight, NORM_EPS)
        parts = gated.view(*gated.shape[:-1], self.groups, -1)
        return F.rms_norm(parts, parts.shape[-1:], eps=NORM_EPS).flatten(-2) * self.weight


MODULES: dict[type[Mixer], type[MixerModule]] = {Attention: AttentionModule, Mamba2: Mamba2Module}


def draw_linear(weight: Tensor, generator: torch.Generator) -> None:
    """Normal of standard deviation fan_in ** -0.5: unit inputs give unit outputs at every width."""
    weight.data.normal_(0.0, weight.shape[1] ** -0.5, generator=generator)


def _table_length(tokens: int) -> int:
    """The next power of two: few tables serve every length, and none is rebuilt in each decoding step."""
    return 1 << max(tokens - 1, 1).bit_length()


@lru_cache(maxsize=16)
def _rope_table(theta: float, head_dim: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin of position * theta ** (-2 i / head_dim), (tokens, head_dim / 2), float32 from float64."""
    with torch.inference_mode(False):  # an inference tensor could not be saved for a later backward
        frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64, device=device) / head_dim)
        angle = torch.arange(tokens, dtype=torch.float64, device=device)[:, None] * frequency
        return angle.cos().float(), angle.sin().float()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (x[i], x[i + head_dim / 2]) by the token's angle i. x (batch, tokens, heads, head_dim)."""
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
