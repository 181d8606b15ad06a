"""A hybrid language model for transformers: every block as its configuration spells it, in plain PyTorch.

Self-contained: this file and configuration_hybrid.py are all that `AutoModelForCausalLM.from_pretrained(DIR,
trust_remote_code=True)` needs. A block is x + mixer(norm(x)), then x + ffn(norm(x)); either part may be absent.
"""

from __future__ import annotations

import math
from dataclasses import make_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES
from transformers.utils import ModelOutput

from .configuration_hybrid import HybridConfig

CHUNK = 64
Layer = dict[str, Tensor]


class HybridCache:
    """What decoding keeps: a dict of tensors a layer, and the positions of the tokens read so far.

    Attention keeps keys (turned by RoPE), values and their positions, of a window no more than it can still see;
    recurrent mixers keep the last inputs of their convolution and their state.
    """

    def __init__(self, layers: int) -> None:
        self.layers: list[Layer] = [{} for _ in range(layers)]
        self.seen = 0

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        for layer in self.layers:
            for name, tensor in layer.items():
                layer[name] = tensor.index_select(0, beam_idx.to(tensor.device))


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


class Attention(nn.Module):
    """Grouped-query attention: RoPE on halves of each head or none, a window with sinks or none."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = spec["heads"], spec["kv_heads"], spec["head_dim"]
        self.theta, self.window, self.sinks = spec["rope_theta"], spec["window"], spec["sinks"]
        width = config.hidden_size
        self.q_proj = nn.Linear(width, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, width, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        """x (batch, tokens, width); positions (batch, tokens), negative for padding."""
        q = self.q_proj(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)).transpose(1, 2)
        if self.theta is not None:
            q, k = self._turn(q, positions), self._turn(k, positions)
        at = positions
        if layer:
            k, v = torch.cat((layer["keys"], k), 2), torch.cat((layer["values"], v), 2)
            at = torch.cat((layer["positions"], positions), 1)
        if layer is not None:
            self._keep(layer, k, v, at)
        repeat = self.heads // self.kv_heads
        y = F.scaled_dot_product_attention(
            q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1), self._mask(positions, at)
        )
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _mask(self, positions: Tensor, at: Tensor) -> Tensor:
        """Which keys, of positions `at`, each query sees: (batch, 1, queries, keys)."""
        query, key = positions[:, None, :, None], at[:, None, None, :]
        seen = (key <= query) & (key >= 0)
        if self.window is not None:
            seen &= (key > query - self.window) | (key < self.sinks)
        return seen | (query < 0)  # a row of padding sees all, since an empty row is no number

    def _keep(self, layer: Layer, k: Tensor, v: Tensor, at: Tensor) -> None:
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


class Mamba2(nn.Module):
    """Mamba-2: rows of in_proj are z, x, B, C, dt; the gate comes before the norm, which is grouped."""

    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.d_ssm, self.head_dim, self.d_state = spec["d_ssm"], spec["head_dim"], spec["d_state"]
        self.groups, self.kernel = spec["groups"], spec["conv_kernel"]
        self.heads = self.d_ssm // self.head_dim
        channels = self.d_ssm + 2 * self.groups * self.d_state
        self.split = [self.d_ssm, channels, self.heads]
        self.in_proj = nn.Linear(config.hidden_size, sum(self.split), bias=False)
        self.conv1d = nn.Conv1d(channels, channels, self.kernel, groups=channels)
        self.A_log = nn.Parameter(torch.zeros(self.heads))
        self.D = nn.Parameter(torch.ones(self.heads))
        self.dt_bias = nn.Parameter(torch.zeros(self.heads))
        self.norm = RMSNorm(self.d_ssm, config.rms_norm_eps, self.groups)
        self.out_proj = nn.Linear(self.d_ssm, config.hidden_size, bias=False)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        real = (positions >= 0)[..., None]
        z, xBC, dt = self.in_proj(x * real).split(self.split, -1)
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
        y = (y + self.D.float()[:, None] * u).flatten(2)
        return self.out_proj(self.norm((y * F.silu(z.float())).to(x.dtype)))


def convolve(x: Tensor, conv: nn.Conv1d, layer: Layer | None) -> Tensor:
    """silu of the causal depthwise convolution over (batch, tokens, channels); keeps its last inputs in `layer`."""
    kernel = conv.kernel_size[0]
    before = layer.get("conv") if layer else None
    if before is None:
        before = x.new_zeros(x.shape[0], kernel - 1, x.shape[2])
    x = torch.cat((before, x), 1)
    if layer is not None:
        layer["conv"] = x[:, x.shape[1] - kernel + 1 :]
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


class SwiGLU(nn.Module):
    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, spec["hidden"], bias=False)
        self.up = nn.Linear(config.hidden_size, spec["hidden"], bias=False)
        self.down = nn.Linear(spec["hidden"], config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class SquaredReLU(nn.Module):
    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, spec["hidden"], bias=False)
        self.down = nn.Linear(spec["hidden"], config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


MIXERS = {"attention": Attention, "mamba2": Mamba2}
FFNS = {"swiglu": SwiGLU, "squared_relu": SquaredReLU}


class Block(nn.Module):
    def __init__(self, spec: dict[str, Any], config: HybridConfig) -> None:
        super().__init__()
        self.mixer_norm = self.mixer = self.ffn_norm = self.ffn = None
        if (mixer := spec["mixer"]) is not None:
            self.mixer_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.mixer = MIXERS[mixer["kind"]](mixer, config)
        if (ffn := spec["ffn"]) is not None:
            self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.ffn = FFNS[ffn["kind"]](ffn, config)

    def forward(self, x: Tensor, positions: Tensor, layer: Layer | None) -> Tensor:
        if self.mixer is not None:
            x = x + self.mixer(self.mixer_norm(x), positions, layer)
        if self.ffn is not None:
            x = x + self.ffn(self.ffn_norm(x))
        return x


CACHE = ALL_CACHE_NAMES[0]  # "cache" in newer versions of transformers, "past_key_values" in older ones
HybridOutput = make_dataclass(
    "HybridOutput",
    [(name, Any, None) for name in ("loss", "logits", "last_hidden_state", CACHE)],
    bases=(ModelOutput,),
)


class HybridPreTrainedModel(PreTrainedModel):
    config_class = HybridConfig
    base_model_prefix = "model"
    _no_split_modules = ("Block",)
    _supports_sdpa = True
    _is_stateful = True

    def _init_weights(self, module: nn.Module) -> None:
        """Normal weights, A uniform in [1, 16], time steps log-uniform in [0.001, 0.1]: a model to train from."""
        super()._init_weights(module)
        if isinstance(module, Mamba2):
            with torch.no_grad():
                module.A_log.uniform_(1, 16).log_()
                dt = torch.empty_like(module.dt_bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
                module.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
                module.D.fill_(1.0)


class HybridModel(HybridPreTrainedModel):
    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(Block(spec, config) for spec in config.blocks)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        cache: HybridCache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> ModelOutput:
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if cache is None and use_cache:
            cache = HybridCache(len(self.blocks))
        positions = self._positions(x, attention_mask, 0 if cache is None else cache.seen)
        for i, block in enumerate(self.blocks):
            x = block(x, positions, None if cache is None else cache.layers[i])
        if cache is not None:
            cache.seen += x.shape[1]
        return HybridOutput(last_hidden_state=self.norm(x), **{CACHE: cache})

    def _positions(self, x: Tensor, mask: Tensor | None, seen: int) -> Tensor:
        """Position of each token of x in its sequence; -1 for padding, which the mask has as 0."""
        if mask is None:
            return torch.arange(seen, seen + x.shape[1], device=x.device).expand(x.shape[0], -1)
        real = mask.bool()
        positions = (real.long().cumsum(1) - 1).masked_fill(~real, -1)
        return positions[:, -x.shape[1] :]


class HybridForCausalLM(HybridPreTrainedModel, GenerationMixin):
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: HybridConfig) -> None:
        super().__init__(config)
        self.model = HybridModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: HybridCache | None = None,
        cache: HybridCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> ModelOutput:
        """logits (batch, tokens, vocab) of the token after each; `loss` in nats a token where labels are given."""
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training and labels is None
        output = self.model(
            input_ids,
            attention_mask,
            inputs_embeds,
            cache=past_key_values if cache is None else cache,
            use_cache=use_cache,
        )
        logits = self.lm_head(output.last_hidden_state[:, -logits_to_keep if logits_to_keep else 0 :])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        return HybridOutput(loss=loss, logits=logits, **{CACHE: output.get(CACHE)})

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        cache = kwargs.get("cache") if kwargs.get("cache") is not None else kwargs.get("past_key_values")
        use_cache = kwargs.get("use_cache", True) is not False
        if cache is None and use_cache:
            cache = HybridCache(self.config.num_hidden_layers)
        return {
            "input_ids": input_ids if cache is None else input_ids[:, cache.seen :],
            "attention_mask": kwargs.get("attention_mask"),
            "cache": cache,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }


HybridConfig.register_for_auto_class()
HybridForCausalLM.register_for_auto_class("AutoModelForCausalLM")
