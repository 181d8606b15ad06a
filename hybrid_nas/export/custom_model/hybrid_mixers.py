"""Attention, Mamba-2, and both in parallel, in plain PyTorch.

A mixer maps (batch, tokens, width) to the same. `positions` (batch, tokens) are those of the tokens, negative for
padding. `layer` is what decoding keeps of this mixer, None where nothing is to be kept.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_hybrid import HybridConfig

CHUNK = 64
Layer = dict[str, Tensor]


class RMSNorm(nn.Module):
    def __init__(self, channels: int, eps: float, groups: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.eps, self.groups = eps, groups

    def forward(self, x: Tensor) -> Tensor:
        """x over its root mean square in each group of channels, in float32, times the weight."""
        wide = x.float().unflatten(-1, (self.groups, -1))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return wide.flatten(-2).to(x.dtype) * self.weight


class AttentionHeads(nn.Module):
    """Grouped-query attention up to its output: RoPE on halves of each head or none, a window with sinks or none."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = spec["heads"], spec["kv_heads"], spec["head_dim"]
        self.theta, self.window, self.sinks = spec["rope_theta"], spec["window"], spec["sinks"]
        self.value_dim = spec.get("value_dim") or self.head_dim
        width = config.hidden_size
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.value_dim, bias=False)

    def attend(self, x: Tensor, positions: Tensor, layer: Layer | None) -> tuple[Tensor, Tensor]:
        """The heads' outputs side by side, and the values (batch, tokens, heads * value_dim), one a query head."""
        repeat = self.heads // self.kv_heads
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.value_dim)).transpose(1, 2)
        values = v.repeat_interleave(repeat, 1).transpose(1, 2).flatten(2)
        if self.theta is not None:
            q, k = self._turn(q, positions), self._turn(k, positions)
        at = positions
        if layer is not None and "keys" in layer:
            k, v = torch.cat((layer["keys"], k), 2), torch.cat((layer["values"], v), 2)
            at = torch.cat((layer["positions"], positions), 1)
        if layer is not None:
            self._keep(layer, k, v, at)
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q, k, v, self._mask(positions, at))
        return y.transpose(1, 2).flatten(2), values

    def _mask(self, positions: Tensor, at: Tensor) -> Tensor:
        """Which keys, of positions `at`, each query sees: (batch, 1, queries, keys)."""
        query, key = positions[:, None, :, None], at[:, None, None, :]
        seen = (key <= query) & (key >= 0)
        if self.window is not None:
            seen &= (key > query - self.window) | (key < self.sinks)
        return seen | (query < 0)  # a row of padding sees all, since an empty row is no number

    def _keep(self, layer: Layer, k: Tensor, v: Tensor, at: Tensor) -> None:
        """Keys, values and their positions, of a window no more than the next token will see."""
        if self.window is not None:
            newest = at[:, -1:]
            gone = ((at <= newest - self.window + 1) & (at >= self.sinks)) | (at < 0)
            kept = ~gone.all(0)
            k, v, at = k[:, :, kept], v[:, :, kept], at[:, kept]
        layer.update(keys=k, values=v, positions=at)

    def _turn(self, x: Tensor, positions: Tensor) -> Tensor:
        half = self.head_dim // 2
        frequency = self.theta ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
        angle = positions[:, None, :, None].float() * frequency
        a, b = x.float().chunk(2, -1)
        turned = torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)
        return turned.to(x.dtype)


class Attention(AttentionHeads):
    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__(spec, config)
        self.o_proj = nn.Linear(self.heads * self.value_dim, config.hidden_size, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        return self.o_proj(self.attend(x, positions, layer)[0])


class Mamba2Heads(nn.Module):
    """Mamba-2 up to its gate. Rows of in_proj are z, x, B, C, dt; without `own_input` x is given."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig, own_input: bool = True) -> None:
        super().__init__()
        self.d_ssm, self.head_dim, self.d_state = spec["d_ssm"], spec["head_dim"], spec["d_state"]
        self.groups, kernel = spec["groups"], spec["conv_kernel"]
        self.heads = self.d_ssm // self.head_dim
        channels = self.d_ssm + 2 * self.groups * self.d_state
        self.split = [self.d_ssm, channels - (0 if own_input else self.d_ssm), self.heads]
        self.in_proj = nn.Linear(config.hidden_size, sum(self.split), bias=False)
        self.conv1d = nn.Conv1d(channels, channels, kernel, groups=channels)
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.dt_bias = nn.Parameter(torch.zeros(self.heads))

    def scan(
        self, x: Tensor, positions: Tensor, layer: Layer | None, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The heads' outputs side by side, float32, and the gate z; `given` takes the place of x."""
        real = (positions >= 0)[..., None]
        z, xBC, dt = self.in_proj(x * real).split(self.split, -1)
        xBC = xBC if given is None else torch.cat((given * real, xBC), -1)
        xBC = convolve(xBC, self.conv1d, layer) * real
        u, B, C = xBC.split([self.d_ssm, self.groups * self.d_state, self.groups * self.d_state], -1)
        u = u.unflatten(-1, (self.heads, self.head_dim)).float()
        repeat = self.heads // self.groups
        B, C = (t.unflatten(-1, (self.groups, self.d_state)).float().repeat_interleave(repeat, 2) for t in (B, C))
        dt = F.softplus(dt.float() + self.dt_bias.float())
        state = layer.get("state") if layer else None
        y, state = ssd(u * dt[..., None], -self.A_log.float().exp() * dt, B, C, state)
        if layer is not None:
            layer["state"] = state
        return (y + self.D.float()[:, None] * u).flatten(2), z

    def begin(self) -> None:
        """A uniform in [1, 16], time steps log-uniform in [0.001, 0.1]."""
        self.A_log.uniform_(1, 16).log_()
        self.dt_bias.copy_(time_steps(self.dt_bias))
        self.D.fill_(1.0)


class Mamba2(Mamba2Heads):
    """The gate comes before the norm, which is grouped."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__(spec, config)
        self.norm = RMSNorm(self.d_ssm, config.rms_norm_eps, self.groups)
        self.out_proj = nn.Linear(self.d_ssm, config.hidden_size, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        y, z = self.scan(x, positions, layer)
        return self.out_proj(self.norm((y * F.silu(z.float())).to(x.dtype)))


class ParallelHybrid(nn.Module):
    """Attention heads and Mamba-2 heads on one input, fused [arXiv:2510.04800, App. D]."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.norm, self.scale, self.fusion = spec["norm"], spec["scale"], spec["fusion"]
        self.joint_value, self.joint_output = spec["value"] == "joint", spec["output"] == "joint"
        self.attention = AttentionHeads(spec["attention"], config)
        self.mamba = Mamba2Heads(spec["mamba"], config, own_input=not self.joint_value)
        d_ssm, values, width = self.mamba.d_ssm, self.attention.heads * self.attention.value_dim, config.hidden_size
        if self.norm == "group":
            self.mamba_norm = RMSNorm(d_ssm, config.rms_norm_eps, self.mamba.groups)
            self.attention_norm = RMSNorm(values, config.rms_norm_eps)
        if self.scale == "vector":
            self.mamba_scale = nn.Parameter(torch.ones(d_ssm))
        if self.scale in ("vector", "diff"):
            self.attention_scale = nn.Parameter(torch.ones(values if self.scale == "vector" else 1))
        if self.scale == "gate":
            self.gate_proj = nn.Linear(width, 2, bias=False)
        if not self.joint_output:
            self.o_proj = nn.Linear(values, width, bias=False)
        self.out_proj = nn.Linear(d_ssm + values if self.fusion == "concat" else d_ssm, width, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        attended, values = self.attention.attend(x, positions, layer)
        y, z = self.mamba.scan(x, positions, layer, values if self.joint_value else None)
        mamba = (y * F.silu(z.float())).to(x.dtype)
        if self.norm == "group":
            mamba, attended = self.mamba_norm(mamba), self.attention_norm(attended)
        if self.scale == "vector":
            mamba = mamba * self.mamba_scale
        if self.scale in ("vector", "diff"):
            attended = attended * self.attention_scale
        if self.scale == "gate":
            gates = 2 * torch.sigmoid(self.gate_proj(x))
            mamba, attended = mamba * gates[..., :1], attended * gates[..., 1:]
        if not self.joint_output:
            mamba, attended = self.out_proj(mamba), self.o_proj(attended)
        if self.fusion == "concat":
            fused = torch.cat((mamba, attended), -1)
        else:
            fused = mamba + attended if self.fusion == "add" else mamba - attended
        return self.out_proj(fused) if self.joint_output else fused

    def begin(self) -> None:
        """Scales begin at 1, as if they were not there."""
        for name in ("mamba_scale", "attention_scale"):
            if hasattr(self, name):
                getattr(self, name).fill_(1.0)


def time_steps(like: Tensor) -> Tensor:
    """Inverse softplus of time steps log-uniform in [0.001, 0.1]."""
    dt = torch.empty_like(like).uniform_(math.log(1e-3), math.log(1e-1)).exp()
    return dt + torch.log(-torch.expm1(-dt))


def convolve(x: Tensor, conv: nn.Conv1d, layer: Layer | None, name: str = "conv") -> Tensor:
    """silu of the causal depthwise convolution over (batch, tokens, channels); keeps its last inputs in `layer`."""
    kernel = conv.kernel_size[0]
    before = layer.get(name) if layer else None
    if before is None:
        before = x.new_zeros(x.shape[0], kernel - 1, x.shape[2])
    x = torch.cat((before, x), 1)
    if layer is not None:
        layer[name] = x[:, x.shape[1] - kernel + 1 :]
    return F.silu(conv(x.transpose(1, 2)).transpose(1, 2))


def ssd(u: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """h_t = exp(log_decay_t) h_(t-1) + u_t B_t', y_t = h_t C_t, in chunks [arXiv:2405.21060, section 6].

    u (batch, tokens, heads, head_dim); log_decay (batch, tokens, heads); B, C (batch, tokens, heads, d_state).
    Returns y as u, and the last state (batch, heads, head_dim, d_state).
    """
    batch, tokens, heads, head_dim = u.shape
    if state is None:
        state = u.new_zeros(batch, heads, head_dim, B.shape[-1])
    parts = []
    for start in range(0, tokens, CHUNK):
        at = slice(start, start + CHUNK)
        total = log_decay[:, at].cumsum(1)  # (batch, chunk, heads)
        gap = total[:, :, None] - total[:, None]  # from token j to token i
        count = gap.shape[1]
        causal = torch.ones(count, count, dtype=torch.bool, device=u.device).tril()[:, :, None]
        decay = gap.masked_fill(~causal, -math.inf).exp()
        scores = torch.einsum("bihn,bjhn->bijh", C[:, at], B[:, at]) * decay
        y = torch.einsum("bijh,bjhp->bihp", scores, u[:, at])
        y = y + torch.einsum("bihn,bhpn,bih->bihp", C[:, at], state, total.exp())
        left = (total[:, -1:] - total).exp()
        state = state * total[:, -1, :, None, None].exp()
        state = state + torch.einsum("bjhp,bjhn,bjh->bhpn", u[:, at], B[:, at], left)
        parts.append(y)
    return torch.cat(parts, 1), state
