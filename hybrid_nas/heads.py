"""Attention heads and Mamba-2 heads up to their output projection: what whole layers and parallel hybrids share.

Weights are named and laid out as the published Mamba-2 and Llama-style models name theirs, so an export is a copy.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hybrid_nas_kernels import attention as attention_op
from hybrid_nas_kernels import causal_conv1d as conv_op
from hybrid_nas_kernels import mamba2 as mamba2_op
from hybrid_nas_kernels import norm_linear as norm_linear_op
from hybrid_nas_kernels import parallel_step as parallel_step_op
from hybrid_nas_kernels import rope as rope_op
from hybrid_nas_kernels import ssd as ssd_op
from hybrid_nas_kernels.adjacent import side_by_side
from torch import Tensor, nn

from hybrid_nas.architecture import Attention, Mamba2
from hybrid_nas.mixer_module import (
    NORM_EPS,
    LayerCache,
    MambaInit,
    decay_log,
    draw_linear,
    draw_short_convolution,
    project,
    time_step_bias,
)


class AttentionHeads(nn.Module):
    """Grouped-query attention up to its output projection, RoPE on halves of each head (as Llama) or no position
    encoding. Without `own_values` they are given, as another's `attend` returns them."""

    def __init__(self, mixer: Attention, width: int, own_values: bool = True) -> None:
        super().__init__()
        self.mixer = mixer
        self.q_proj = nn.Linear(width, mixer.heads * mixer.head_dim, bias=False)
        self.k_proj = nn.Linear(width, mixer.kv_heads * mixer.head_dim, bias=False)
        self.own_values = own_values
        if own_values:
            self.v_proj = nn.Linear(width, mixer.kv_values, bias=False)

    def attend(self, x: Tensor, norm: Tensor | None, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The heads' outputs, side by side, and the values (batch, tokens, kv_heads, value_dim)."""
        batch, tokens, _ = x.shape
        m = self.mixer
        q, k, v = self._project(x.reshape(batch * tokens, -1), norm, batch, tokens, 0, given)
        y = attention_op.attention(q, k, v, window=m.window, sinks=m.sinks)
        return y.reshape(batch, tokens, -1), v

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """Keys (already turned by RoPE) and values, (batch, slots, kv_heads, _), in memory head after head. A window
        keeps the sinks and then a ring of `window` slots."""
        m = self.mixer
        slots = context if m.window is None else min(context, m.window + m.sinks)
        sizes = {"keys": m.head_dim, "values": m.value_dim or m.head_dim}
        shape = (batch, m.kv_heads, slots)
        return {n: torch.zeros(*shape, d, device=device, dtype=dtype).transpose(1, 2) for n, d in sizes.items()}

    def attend_step(
        self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`attend` for one token, x (batch, width): (batch, values), and (batch, kv_heads, value_dim)."""
        weights = self.read_together()[: None if given is None else 2]
        return self.attend_projected(
            norm_linear_op.norm_linears(x, norm, weights, eps=NORM_EPS), cache, position, given
        )

    def attend_projected(
        self, projected: Sequence[Tensor], cache: LayerCache, position: int, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`attend_step` of what the weights of `read_together` made of the token."""
        cached = self.cached_arguments(projected, cache, position, given)
        _, v, keys, values, *_ = cached
        return attention_op.attention_step(rope_op.rope_and_cache(*cached), keys, values).flatten(1), v

    def cached_arguments(
        self, projected: Sequence[Tensor], cache: LayerCache, position: int, given: Tensor | None = None
    ) -> rope_op.Cached:
        """What `rope_and_cache` is given, of the cache what is filled with the token."""
        m = self.mixer
        slot = position
        if m.window is not None and position >= m.sinks:
            slot = m.sinks + (position - m.sinks) % m.window
        filled = min(position + 1, cache["keys"].shape[1])
        keys, values = (cache[name][:, :filled] for name in ("keys", "values"))
        qk, v = side_by_side(projected[:2]), projected[2] if given is None else given
        table = None
        if m.rope_theta is not None:
            table = rope_op.rope_table(m.rope_theta, m.head_dim, position, 1, qk.device)
        batch = len(qk)
        return qk.view(batch, -1, m.head_dim), v.view(batch, m.kv_heads, -1), keys, values, slot, table

    def _project(
        self, x: Tensor, norm: Tensor | None, batch: int, tokens: int, start: int, given: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys, turned by RoPE, and values, of tokens from position `start`: (batch, tokens, heads, _)."""
        m = self.mixer
        turned = m.heads + m.kv_heads
        own = () if given is not None else (self.v_proj.weight,)
        weights = (self.q_proj.weight, self.k_proj.weight, *own)
        if tokens == 1:
            q, k, *rest = norm_linear_op.norm_linears(x, norm, weights, eps=NORM_EPS)
            qk = side_by_side((q, k))
        else:
            qk, *rest = project(x, norm, torch.cat(weights), [turned * m.head_dim, *(m.kv_values for _ in own)])
        return self._turned(qk, rest[0] if given is None else given, batch, tokens, start)

    def _turned(self, qk: Tensor, v: Tensor, batch: int, tokens: int, start: int) -> tuple[Tensor, Tensor, Tensor]:
        m = self.mixer
        turned = m.heads + m.kv_heads
        qk = qk.view(batch, tokens, turned, m.head_dim)
        if m.rope_theta is not None:
            qk = rope_op.rope(qk, *rope_op.rope_table(m.rope_theta, m.head_dim, start, tokens, qk.device))
        q, k = torch.split(qk, [m.heads, m.kv_heads], dim=2)
        return q, k, v.view(batch, tokens, m.kv_heads, -1)

    def read_together(self) -> list[Tensor]:
        """The weights that read the layer's input."""
        return [p.weight for p in (self.q_proj, self.k_proj, *([self.v_proj] if self.own_values else []))]

    def draw(self, generator: torch.Generator) -> None:
        for weight in self.read_together():
            draw_linear(weight, generator)

    def implementations(self, device: torch.device) -> dict[str, str]:
        chosen = {
            "norm_linear": norm_linear_op.choose(device)[0],
            "attention": attention_op.choose(device, self.mixer.window is not None and not self.mixer.sinks)[0],
        }
        return chosen if self.mixer.rope_theta is None else {**chosen, "rope": rope_op.choose(device)[0]}


class Mamba2Heads(nn.Module):
    """Mamba-2 [arXiv:2405.21060] up to its gate. `in_proj` rows are z, x, B, C, dt; without `own_input` x is given."""

    def __init__(self, mixer: Mamba2, width: int, own_input: bool = True) -> None:
        super().__init__()
        self.mixer = mixer
        m = mixer
        self.split = [m.d_ssm, m.conv_channels - (0 if own_input else m.d_ssm), m.heads]
        self.in_proj = nn.Linear(width, sum(self.split), bias=False)
        self.conv1d = nn.Conv1d(m.conv_channels, m.conv_channels, m.conv_kernel, groups=m.conv_channels)
        self.A_log = nn.Parameter(torch.empty(m.heads))
        self.D = nn.Parameter(torch.empty(m.heads))
        self.dt_bias = nn.Parameter(torch.empty(m.heads))

    def scan(self, x: Tensor, norm: Tensor | None, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The heads' outputs, side by side, and the gate z; `given` (batch, tokens, d_ssm) takes the place of x."""
        batch, tokens, _ = x.shape
        m = self.mixer
        z, xBC, dt = project(x, norm, self.in_proj.weight, self.split)
        xBC = xBC if given is None else torch.cat((given, xBC), dim=-1)
        parts = (m.d_ssm, 2 * m.groups * m.d_state)
        u, BC = conv_op.causal_conv1d(xBC, self.conv1d.weight.squeeze(1), self._conv_bias(), parts)
        B, C = torch.chunk(BC, 2, dim=-1)
        y, _ = ssd_op.ssd(
            u.view(batch, tokens, m.heads, m.head_dim),
            ssd_op.time_step(dt, self.dt_bias),
            -torch.exp(self.A_log),
            B.view(batch, tokens, m.groups, m.d_state),
            C.view(batch, tokens, m.groups, m.d_state),
            self.D,
        )
        return y.reshape(batch, tokens, m.d_ssm), z

    def cache(self, batch: int, context: int, device: torch.device, dtype: torch.dtype) -> LayerCache:
        """The last `conv_kernel` inputs of the convolution, a ring, and the state, whatever the context."""
        del context
        m = self.mixer
        return {
            "conv": torch.zeros(batch, m.conv_channels, m.conv_kernel, device=device, dtype=dtype),
            "state": torch.zeros(batch, m.heads, m.head_dim, m.d_state, device=device, dtype=dtype),
        }

    def scan_step(
        self, x: Tensor, cache: LayerCache, position: int, norm: Tensor | None, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`scan` for one token, x (batch, width)."""
        (projected,) = norm_linear_op.norm_linears(x, norm, self.read_together(), eps=NORM_EPS)
        return self.scan_projected(projected, cache, position, given)

    def read_together(self) -> list[Tensor]:
        """The weights that read the layer's input."""
        return [self.in_proj.weight]

    def scan_projected(
        self, projected: Tensor, cache: LayerCache, position: int, given: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """`scan_step` of what `in_proj` made of the token."""
        arguments, z = self.scan_arguments(projected, cache, position, given)
        return mamba2_op.conv_scan_step(*arguments).flatten(1), z

    def scan_arguments(
        self, projected: Tensor, cache: LayerCache, position: int, given: Tensor | None = None
    ) -> tuple[parallel_step_op.Mamba, Tensor]:
        """What `conv_scan_step` is given, and the gate z."""
        z, xBC, dt = torch.split(projected, self.split, dim=-1)
        xBC = xBC if given is None else torch.cat((given, xBC), dim=-1)
        weight, bias = self.conv1d.weight.squeeze(1), self._conv_bias()
        ring, state = cache["conv"], cache["state"]
        return (xBC, dt, ring, state, position, weight, bias, self.A_log, self.D, self.dt_bias), z

    def draw(self, generator: torch.Generator, mamba_init: MambaInit, *outputs: Tensor) -> None:
        """Initial weights, and those of the `outputs`, which are drawn after `in_proj`.

        A and time steps drawn as `decay_log` and `time_step_bias` say."""
        m = self.mixer
        for weight in (self.in_proj.weight, *outputs):
            draw_linear(weight, generator)
        draw_short_convolution(self.conv1d, generator)
        uniform = torch.empty(2, m.heads, dtype=torch.float64).uniform_(generator=generator)
        self.A_log.data.copy_(decay_log(uniform[0], mamba_init))
        self.dt_bias.data.copy_(time_step_bias(uniform[1]))
        self.D.data.fill_(1.0)

    def implementations(self, device: torch.device) -> dict[str, str]:
        return {
            "norm_linear": norm_linear_op.choose(device)[0],
            "causal_conv1d": conv_op.choose(device)[0],
            "ssd": ssd_op.choose(device)[0],
        }

    def _conv_bias(self) -> Tensor:
        assert self.conv1d.bias is not None
        return self.conv1d.bias
