"""Recurrent mixers beside Mamba-2, a token at a time in plain PyTorch: the meaning, not the speed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .configuration_hybrid import HybridConfig
from .hybrid_mixers import Layer, RMSNorm, convolve, time_steps


class Mamba1(nn.Module):
    """Mamba [arXiv:2312.00752]: rows of in_proj are x, z; rows of x_proj dt (through dt_proj), B, C."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.d_ssm, self.d_state, self.dt_rank = spec["d_ssm"], spec["d_state"], spec["dt_rank"]
        self.in_proj = nn.Linear(config.hidden_size, 2 * self.d_ssm, bias=False)
        self.conv1d = nn.Conv1d(self.d_ssm, self.d_ssm, spec["conv_kernel"], groups=self.d_ssm)
        self.x_proj = nn.Linear(self.d_ssm, self.dt_rank + 2 * self.d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_ssm)
        self.norms = spec.get("norms", False)
        if self.norms:
            self.dt_norm = RMSNorm(self.dt_rank, config.rms_norm_eps)
            self.B_norm, self.C_norm = (RMSNorm(self.d_state, config.rms_norm_eps) for _ in range(2))
        self.A_log = nn.Parameter(torch.zeros(self.d_ssm, self.d_state))
        self.D = nn.Parameter(torch.ones(self.d_ssm))
        self.out_proj = nn.Linear(self.d_ssm, config.hidden_size, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        real = (positions >= 0)[..., None]
        u, z = self.in_proj(x * real).chunk(2, -1)
        u = convolve(u, self.conv1d, layer) * real
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], -1)
        if self.norms:
            dt, B, C = self.dt_norm(dt), self.B_norm(B), self.C_norm(C)
        dt = F.softplus(self.dt_proj(dt)).float()
        decay = torch.exp(-self.A_log.float().exp() * dt[..., None])
        written = (dt * u.float())[..., None] * B.float()[:, :, None]
        state = layer.get("state") if layer else None
        if state is None:
            state = written.new_zeros(written.shape[0], self.d_ssm, self.d_state)
        outputs = []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + written[:, t]
            outputs.append((state * C[:, t, None].float()).sum(-1))
        if layer is not None:
            layer["state"] = state
        y = torch.stack(outputs, 1) + self.D.float() * u.float()
        return self.out_proj((y * F.silu(z.float())).to(x.dtype))

    def begin(self) -> None:
        """A is -1 .. -d_state in every channel, time steps log-uniform in [0.001, 0.1]."""
        self.A_log.copy_(torch.arange(1, self.d_state + 1, device=self.A_log.device).log().expand(self.d_ssm, -1))
        self.dt_proj.bias.copy_(time_steps(self.dt_proj.bias))
        self.D.fill_(1.0)


class Mamba3(nn.Module):
    """Mamba-3 [arXiv:2603.15569]: rows of in_proj are z, x, B, C, dt, A, trapezoid, angles."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.d_ssm, self.head_dim, self.d_state = spec["d_ssm"], spec["head_dim"], spec["d_state"]
        self.groups = spec["groups"]
        self.heads, self.pairs = self.d_ssm // self.head_dim, self.d_state // 4
        shared = self.groups * self.d_state
        self.split = [self.d_ssm, self.d_ssm, shared, shared, self.heads, self.heads, self.heads, self.pairs]
        self.in_proj = nn.Linear(config.hidden_size, sum(self.split), bias=False)
        self.dt_bias = nn.Parameter(torch.zeros(self.heads))
        self.B_bias = nn.Parameter(torch.ones(self.heads, self.d_state))
        self.C_bias = nn.Parameter(torch.ones(self.heads, self.d_state))
        self.B_norm = RMSNorm(self.d_state, config.rms_norm_eps)
        self.C_norm = RMSNorm(self.d_state, config.rms_norm_eps)
        self.D = nn.Parameter(torch.ones(self.heads))
        self.out_proj = nn.Linear(self.d_ssm, config.hidden_size, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        z, u, B, C, dt, A, trap, angle = self.in_proj(x).split(self.split, -1)
        repeat = self.heads // self.groups
        B, C = (
            norm(t.unflatten(-1, (self.groups, self.d_state))).float().repeat_interleave(repeat, 2) + bias.float()
            for t, norm, bias in ((B, self.B_norm, self.B_bias), (C, self.C_norm, self.C_bias))
        )
        real = (positions >= 0)[..., None]
        dt = F.softplus(dt.float() + self.dt_bias.float()) * real
        decay = torch.exp(-F.softplus(A.float()).clamp(min=1e-4) * dt)
        now = torch.sigmoid(trap.float())
        u = u.unflatten(-1, (self.heads, self.head_dim)).float() * real[..., None]
        turns = math.pi * torch.tanh(angle.float())[:, :, None] * dt[..., None]
        kept = dict(layer or {})
        if not kept:
            batch = x.shape[0]
            kept = {
                "phase": u.new_zeros(batch, self.heads, self.pairs),
                "state": u.new_zeros(batch, self.heads, self.head_dim, self.d_state),
                "key": u.new_zeros(batch, self.heads, self.d_state),
                "value": u.new_zeros(batch, self.heads, self.head_dim),
            }
        outputs = []
        for t in range(x.shape[1]):
            phase = torch.remainder(kept["phase"] + turns[:, t], 2 * math.pi)
            key, query = turned(B[:, t], phase), turned(C[:, t], phase)
            past = ((1 - now[:, t]) * dt[:, t])[..., None, None] * kept["value"][..., None] * kept["key"][..., None, :]
            fresh = (now[:, t] * dt[:, t])[..., None, None] * u[:, t, :, :, None] * key[..., None, :]
            state = decay[:, t, :, None, None] * (kept["state"] + past) + fresh
            outputs.append((state * query[..., None, :]).sum(-1))
            kept = {"phase": phase, "state": state, "key": key, "value": u[:, t]}
        if layer is not None:
            layer.update(kept)
        y = torch.stack(outputs, 1) + self.D.float()[:, None] * u
        return self.out_proj((y.flatten(2) * F.silu(z.float())).to(x.dtype))

    def begin(self) -> None:
        self.dt_bias.copy_(time_steps(self.dt_bias))
        for parameter in (self.B_bias, self.C_bias, self.D):
            parameter.fill_(1.0)


class GatedDeltaNet(nn.Module):
    """Gated DeltaNet [arXiv:2412.06464]: the norm of a head comes before its gate; convolutions without bias."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.heads, self.key_dim, self.value_dim = spec["heads"], spec["key_dim"], spec["value_dim"]
        keys, values, width = self.heads * self.key_dim, self.heads * self.value_dim, config.hidden_size
        self.q_proj = nn.Linear(width, keys, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, values, bias=False)
        self.g_proj = nn.Linear(width, values, bias=False)
        self.a_proj = nn.Linear(width, self.heads, bias=False)
        self.b_proj = nn.Linear(width, self.heads, bias=False)
        self.q_conv1d, self.k_conv1d, self.v_conv1d = (
            nn.Conv1d(channels, channels, spec["conv_kernel"], groups=channels, bias=False)
            for channels in (keys, keys, values)
        )
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.dt_bias = nn.Parameter(torch.zeros(self.heads))
        self.o_norm = RMSNorm(self.value_dim, config.rms_norm_eps)
        self.o_proj = nn.Linear(values, width, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        real = (positions >= 0)[..., None]
        x = x * real
        q, k, v = (
            convolve(projection(x), conv, layer, name).unflatten(-1, (self.heads, -1)).float() * real[..., None]
            for projection, conv, name in (
                (self.q_proj, self.q_conv1d, "q_conv"),
                (self.k_proj, self.k_conv1d, "k_conv"),
                (self.v_proj, self.v_conv1d, "v_conv"),
            )
        )
        q, k = (t * torch.rsqrt(t.square().sum(-1, keepdim=True) + 1e-6) for t in (q, k))
        q = q * self.key_dim**-0.5
        decay = torch.exp(-self.A_log.float().exp() * F.softplus(self.a_proj(x).float() + self.dt_bias.float()))
        strength = torch.sigmoid(self.b_proj(x).float())
        state = layer.get("state") if layer else None
        if state is None:
            state = v.new_zeros(x.shape[0], self.heads, self.key_dim, self.value_dim)
        outputs = []
        for t in range(x.shape[1]):
            state = decay[:, t, :, None, None] * state
            found = (state * k[:, t, :, :, None]).sum(-2)
            written = strength[:, t, :, None] * (v[:, t] - found)
            state = state + k[:, t, :, :, None] * written[..., None, :]
            outputs.append((state * q[:, t, :, :, None]).sum(-2))
        if layer is not None:
            layer["state"] = state
        y = self.o_norm(torch.stack(outputs, 1).to(x.dtype)).flatten(2)
        return self.o_proj(y * F.silu(self.g_proj(x)))

    def begin(self) -> None:
        self.A_log.uniform_(1, 16).log_()
        self.dt_bias.copy_(time_steps(self.dt_bias))


def turned(x: Tensor, phase: Tensor) -> Tensor:
    """x (..., d_state) with its pairs (0, 1), (2, 3), ... turned by phase (..., pairs); the rest stays as it is."""
    pairs = phase.shape[-1]
    first, second = x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2]
    cos, sin = phase.cos(), phase.sin()
    pair = torch.stack((first * cos - second * sin, first * sin + second * cos), -1).flatten(-2)
    return torch.cat((pair, x[..., 2 * pairs :]), -1)
