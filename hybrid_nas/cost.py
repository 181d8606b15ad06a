"""What a model costs, by arithmetic: parameters, FLOPs, cache. One function a mixer.

Conventions [arXiv:2510.04800, Table 1 and App. C]: a multiply-add is 2 FLOPs; training is 3 forward passes, so every
non-embedding weight costs 6 FLOPs a token; embedding and classifier are left out of the training figure (the printed
totals need that) and the classifier is counted in decoding, where it is read for every token. Attention is causal:
token t reads t keys, on average (context + 1) / 2. Caches hold 2 bytes a value unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hybrid_nas.architecture import (
    FFN,
    Architecture,
    Attention,
    Mamba2,
    Mixer,
    ParallelHybrid,
    ParallelPair,
    SquaredReLU,
    SwiGLU,
)
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet, Mamba1, Mamba3
from hybrid_nas.speed import SPEEDS, Speed


@dataclass(frozen=True)
class MixerCost:
    """Cost of one mixer. FLOPs are those beyond its weight matrices, for one token.

    `forward_flops` is the mean over a training sequence of `context` tokens, `decode_flops` that of the last one.
    `kv_values` are cached numbers that grow with the context, `state_values` those that do not.
    """

    params: int
    forward_flops: float
    decode_flops: float
    kv_values: int
    state_values: int


def attention_cost(mixer: Attention, width: int, context: int) -> MixerCost:
    """Softmax attention, full or windowed. Sinks count with the window, as in the paper's key map of 512 + 64."""
    queries, keys = mixer.heads * mixer.head_dim, mixer.kv_heads * mixer.head_dim
    visible = _visible(mixer, context)
    mean_keys = visible * ((visible + 1) / 2 + (context - visible)) / context
    return MixerCost(
        params=width * (queries + keys + mixer.kv_values + mixer.values),
        forward_flops=2 * (queries + mixer.values) * mean_keys,
        decode_flops=2 * (queries + mixer.values) * visible,
        kv_values=(keys + mixer.kv_values) * visible,
        state_values=0,
    )


def _visible(mixer: Attention, context: int) -> int:
    """Keys that the last of `context` tokens sees."""
    return context if mixer.window is None else min(context, mixer.window + mixer.sinks)


def mamba2_cost(mixer: Mamba2, width: int, context: int) -> MixerCost:
    """Mamba-2. The scan is counted as in the paper, 9 d_ssm d_state + 2 d_ssm a token, in training and decoding.

    The cache is the state and the last `conv_kernel` inputs of the convolution, as mamba-ssm keeps them.
    """
    del context
    scan = 9 * mixer.d_ssm * mixer.d_state + 2 * mixer.d_ssm
    in_features = 2 * mixer.d_ssm + 2 * mixer.groups * mixer.d_state + mixer.heads
    return MixerCost(
        params=width * in_features
        + mixer.conv_channels * (mixer.conv_kernel + 1)  # weight and bias
        + 3 * mixer.heads  # A_log, D, dt_bias
        + mixer.d_ssm  # gated norm
        + mixer.d_ssm * width,
        forward_flops=scan,
        decode_flops=scan,
        kv_values=0,
        state_values=mixer.d_ssm * mixer.d_state + mixer.conv_kernel * mixer.conv_channels,
    )


def mamba1_cost(mixer: Mamba1, width: int, context: int) -> MixerCost:
    """Mamba-1. The scan is counted as Mamba-2's, 9 d_ssm d_state + 2 d_ssm a token: the same sums over its state."""
    del context
    scan = 9 * mixer.d_ssm * mixer.d_state + 2 * mixer.d_ssm
    selected = mixer.dt_rank + 2 * mixer.d_state
    return MixerCost(
        params=width * 2 * mixer.d_ssm
        + mixer.d_ssm * (mixer.conv_kernel + 1)  # weight and bias
        + mixer.d_ssm * selected
        + (mixer.dt_rank + 1) * mixer.d_ssm  # weight and bias
        + mixer.d_ssm * (mixer.d_state + 1)  # A_log, D
        + (selected if mixer.norms else 0)
        + mixer.d_ssm * width,
        forward_flops=scan,
        decode_flops=scan,
        kv_values=0,
        state_values=mixer.d_ssm * (mixer.d_state + mixer.conv_kernel),
    )


def mamba3_cost(mixer: Mamba3, width: int, context: int) -> MixerCost:
    """Mamba-3. The scan is counted as Mamba-2's, and the input of the token before, 3 d_ssm d_state more; turning B and
    C costs 6 a number that turns. The cache is the phases, the state, and the last token's key and value."""
    del context
    turning = 2 * 6 * mixer.heads * 2 * mixer.pairs
    scan = 12 * mixer.d_ssm * mixer.d_state + 2 * mixer.d_ssm + turning
    in_features = 2 * mixer.d_ssm + 2 * mixer.groups * mixer.d_state + 3 * mixer.heads + mixer.pairs
    return MixerCost(
        params=width * in_features
        + 2 * mixer.heads  # D, dt_bias
        + 2 * mixer.heads * mixer.d_state  # biases of B and C
        + 2 * mixer.d_state  # their norms
        + mixer.d_ssm * width,
        forward_flops=scan,
        decode_flops=scan,
        kv_values=0,
        state_values=mixer.d_ssm * (mixer.d_state + 1) + mixer.heads * (mixer.d_state + mixer.pairs),
    )


def parallel_hybrid_cost(mixer: ParallelHybrid, width: int, context: int) -> MixerCost:
    """Both halves, and what their fusion adds or saves. The elementwise work of norms and scales is not counted, as
    nowhere else."""
    attention = attention_cost(mixer.attention, width, context)
    mamba = mamba2_cost(mixer.mamba, width, context)
    d_ssm, values = mixer.mamba.d_ssm, mixer.attention.values
    params = attention.params + mamba.params
    params += values if mixer.norm == "group" else -d_ssm  # the attention's gain, or Mamba-2's own taken away
    params += {"none": 0, "vector": values + d_ssm, "diff": 1, "gate": 2 * width}[mixer.scale]
    if mixer.value == "joint":
        params -= width * d_ssm  # Mamba-2's own input
    if mixer.output == "joint" and mixer.fusion != "concat":
        params -= width * d_ssm  # one projection for both
    return MixerCost(
        params=params,
        forward_flops=attention.forward_flops + mamba.forward_flops,
        decode_flops=attention.decode_flops + mamba.decode_flops,
        kv_values=attention.kv_values,
        state_values=mamba.state_values,
    )


def parallel_pair_cost(mixer: ParallelPair, width: int, context: int) -> MixerCost:
    """Twice one half, and what their fusion adds or saves."""
    attention = isinstance(mixer.half, Attention)
    half, channels = mixer_cost(mixer.half, width, context), mixer.channels
    params, kv_values = 2 * half.params, 2 * half.kv_values
    if attention == (mixer.norm == "group"):  # Mamba-2 has a gain of its own, attention has none
        params += 2 * channels if attention else -2 * channels
    params += {"none": 0, "vector": 2 * channels, "diff": 1, "gate": 2 * width}[mixer.scale]
    if mixer.output == "joint" and mixer.fusion != "concat":
        params -= width * channels  # one projection for both
    if mixer.value == "joint" and isinstance(mixer.half, Attention):
        params -= width * mixer.half.kv_values
        kv_values -= mixer.half.kv_values * _visible(mixer.half, context)
    return MixerCost(params, 2 * half.forward_flops, 2 * half.decode_flops, kv_values, 2 * half.state_values)


def gated_deltanet_cost(mixer: GatedDeltaNet, width: int, context: int) -> MixerCost:
    """Gated DeltaNet. The recurrence a token and number of the state: 1 to decay, 2 to read the key, 2 to write, 2 to
    read the query."""
    del context
    state = mixer.heads * mixer.key_dim * mixer.value_dim
    channels = 2 * mixer.keys + mixer.values
    return MixerCost(
        params=width * (channels + mixer.values + 2 * mixer.heads)
        + channels * mixer.conv_kernel
        + 2 * mixer.heads  # A_log, dt_bias
        + mixer.value_dim  # norm of a head
        + mixer.values * width,
        forward_flops=7 * state,
        decode_flops=7 * state,
        kv_values=0,
        state_values=state + mixer.conv_kernel * channels,
    )


MIXER_COSTS: dict[type[Mixer], Callable[..., MixerCost]] = {
    Attention: attention_cost,
    Mamba2: mamba2_cost,
    ParallelHybrid: parallel_hybrid_cost,
    ParallelPair: parallel_pair_cost,
    Mamba1: mamba1_cost,
    Mamba3: mamba3_cost,
    GatedDeltaNet: gated_deltanet_cost,
}


def mixer_cost(mixer: Mixer, width: int, context: int) -> MixerCost:
    return MIXER_COSTS[type(mixer)](mixer, width, context)


def ffn_params(ffn: FFN, width: int, active: bool = False) -> int:
    """Parameters of an FFN; `active`: those that one token uses."""
    match ffn:
        case SwiGLU():
            return 3 * width * ffn.hidden
        case SquaredReLU():
            return 2 * width * ffn.hidden
        case MoE():
            experts = ffn.active if active else ffn.experts
            return width * ffn.experts + (1 + experts) * 3 * width * ffn.hidden


@dataclass(frozen=True)
class Cost:
    """Cost of a whole model at one context.

    `params_active` are the non-embedding parameters that one token uses, with experts fewer than all; FLOPs and the
    bytes of decoding count those. `cache_bytes` is all that decoding keeps per sequence: `kv_bytes`, which grow with
    the context, and `state_bytes`, which do not. `speed` is there where a study asks for it.
    """

    layout: str
    layers: int
    context: int
    params: int
    params_nonembedding: int
    params_active: int
    train_flops_per_token: float
    decode_flops_per_token: float
    decode_bytes_per_token: int
    cache_bytes: int
    kv_bytes: int
    state_bytes: int
    speed: Speed | None = None

    def value(self, name: str) -> float:
        """A quantity by name, those of `speed` too."""
        return float(getattr(self.speed if name in SPEEDS else self, name))

    def has(self, name: str) -> bool:
        return self.speed is not None if name in SPEEDS else hasattr(self, name)

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        if self.speed is None:
            del data["speed"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cost:
        """Inverse of `to_dict`. Costs written before there were experts have no `params_active`: all were active."""
        speed = data.get("speed")
        kept = {"params_active": data["params_nonembedding"], **data}
        return cls(**{**kept, "speed": None if speed is None else Speed.from_dict(speed)})


def params_nonembedding(architecture: Architecture, active: bool = False) -> int:
    """Every parameter but the tied embedding: mixers, FFNs, one norm before each, the final norm. `active`: those that
    one token uses, which is fewer with experts."""
    width = architecture.width
    total = width
    for block in architecture.blocks:
        if block.mixer is not None:
            total += width + mixer_cost(block.mixer, width, 1).params
        if block.ffn is not None:
            total += width + ffn_params(block.ffn, width, active)
    return total


def cost(architecture: Architecture, context: int, value_bytes: int = 2) -> Cost:
    """Cost of `architecture` at `context` tokens; weights and caches of `value_bytes` bytes a value (2: bfloat16).

    `train_flops_per_token` is the mean over a sequence of `context` tokens; `decode_flops_per_token` and
    `decode_bytes_per_token` are for one sequence's token at position `context`, every weight that it uses read once.
    """
    if context < 1:
        raise ValueError(f"cost: context must be at least 1 token, found {context}")
    mixers = [mixer_cost(b.mixer, architecture.width, context) for b in architecture.blocks if b.mixer]
    body, active = params_nonembedding(architecture), params_nonembedding(architecture, active=True)
    embedding = architecture.vocab * architecture.width
    kv_bytes = value_bytes * sum(m.kv_values for m in mixers)
    state_bytes = value_bytes * sum(m.state_values for m in mixers)
    return Cost(
        layout=architecture.layout,
        layers=architecture.depth,
        context=context,
        params=body + embedding,
        params_nonembedding=body,
        params_active=active,
        train_flops_per_token=6 * active + 3 * sum(m.forward_flops for m in mixers),
        decode_flops_per_token=2 * (active + embedding) + sum(m.decode_flops for m in mixers),
        decode_bytes_per_token=value_bytes * (active + embedding) + kv_bytes + state_bytes,
        cache_bytes=kv_bytes + state_bytes,
        kv_bytes=kv_bytes,
        state_bytes=state_bytes,
    )
