"""flash-linear-attention (and flame): Gated DeltaNet with attention among it, a SwiGLU after each, as config JSON.

Its Mamba2 model drops an `attn` key without a word and its Samba is Mamba-1, so attention among Mamba-2 has no place
there. Attention is listed by layer and may differ from layer to layer; it always has RoPE and heads that fill the
width.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, Mixer, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, Rule, WeightMap
from hybrid_nas.export.granite import NORM_EPS, mixer_names
from hybrid_nas.export.rules import (
    first,
    has_mixers,
    mixers_of,
    no_experts,
    one_ffn_after_each,
    one_of,
    only_mixers,
    position,
    with_mixers,
)
from hybrid_nas.recurrent import GatedDeltaNet

DEFAULTS = {
    "hidden_size": 2048, "expand_v": 2.0, "use_gate": True, "use_short_conv": True, "conv_size": 4, "head_dim": 256,
    "num_heads": 6, "max_position_embeddings": 2048, "hidden_ratio": 4, "num_hidden_layers": 21, "norm_eps": 1e-6,
    "tie_word_embeddings": False, "vocab_size": 32000, "allow_neg_eigval": False, "output_gate_activation": "swish",
}  # fmt: skip
DELTA_TENSORS = (
    *(f"{name}_proj.weight" for name in "qkvgab"), *(f"{name}_conv1d.weight" for name in "qkv"), "A_log", "dt_bias",
    "o_norm.weight", "o_proj.weight",
)  # fmt: skip


def write(architecture: Architecture, context: int) -> Files:
    delta: GatedDeltaNet = first(architecture, GatedDeltaNet)
    ffn = architecture.blocks[0].ffn
    assert isinstance(ffn, SwiGLU)
    layers: dict[Attention, list[int]] = {}
    for i, block in enumerate(architecture.blocks):
        if isinstance(block.mixer, Attention):
            layers.setdefault(block.mixer, []).append(i)
    attn = [
        {
            "layers": at,
            "num_heads": mixer.heads,
            "num_kv_heads": mixer.kv_heads,
            "qkv_bias": False,
            "window_size": mixer.window,
            "rope_theta": mixer.rope_theta,
        }
        for mixer, at in layers.items()
    ]
    config = {
        "architectures": ["GatedDeltaNetForCausalLM"],
        "model_type": "gated_deltanet",
        "vocab_size": architecture.vocab,
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.depth,
        "max_position_embeddings": context,
        "num_heads": delta.heads,
        "head_dim": delta.key_dim,
        "expand_v": delta.value_dim / delta.key_dim,
        "use_gate": True,
        "use_short_conv": True,
        "conv_size": delta.conv_kernel,
        "intermediate_size": ffn.hidden,
        "hidden_act": "swish",
        "norm_eps": NORM_EPS,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": None,
        "attn": attn[0] if len(attn) == 1 else attn or None,
    }
    return {"config.json": json.dumps(config, indent=2) + "\n"}


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    width, vocab, depth = (fields.count(name) for name in ("hidden_size", "vocab_size", "num_hidden_layers"))
    key_dim, heads = fields.count("head_dim"), fields.count("num_heads")
    delta = GatedDeltaNet(heads, key_dim, round(key_dim * fields["expand_v"]), fields.count("conv_size"))
    mixers: list[Mixer] = [delta] * depth
    attn = fields["attn"] or []
    for spec in [attn] if isinstance(attn, dict) else attn:
        own = spec["num_heads"]
        attention = Attention(
            own, spec.get("num_kv_heads") or own, width // own, spec.get("rope_theta") or 1e4, spec.get("window_size")
        )
        for layer in spec["layers"]:
            if not 0 <= layer < depth:
                raise CannotRead(f"attn: layers are 0 to {depth - 1}, found {layer}")
            mixers[layer] = attention
    hidden = fields["intermediate_size"]
    if hidden is None:  # as the package rounds it
        hidden = 256 * -(-int(width * fields["hidden_ratio"] * 2 / 3) // 256)
    ffn = SwiGLU(hidden)
    shared = fields["num_v_heads"] or heads
    grouped = () if shared == heads else (f"num_v_heads is {shared}; here every key head has one value head",)
    return Imported(
        Architecture(width, vocab, tuple(Block(mixer, ffn) for mixer in mixers)),
        fields.count("max_position_embeddings"),
        (
            *fields.untied(vocab, width),
            *grouped,
            *fields.differs(
                norm_eps=NORM_EPS,
                use_gate=True,
                use_short_conv=True,
                allow_neg_eigval=False,
                output_gate_activation="swish",
            ),
            *fields.unread("hidden_ratio", "num_v_heads", hidden_act="swish"),
        ),
    )


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {"model.embeddings.weight": ("embedding",), "model.norm.weight": ("norm.weight",)}
    for i, block in enumerate(architecture.blocks):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        names[f"{theirs}.attn_norm.weight"] = (f"{ours}.mixer_norm.weight",)
        if isinstance(block.mixer, Attention):
            names |= mixer_names(block.mixer, f"{ours}.mixer", f"{theirs}.attn")
        else:
            names |= {f"{theirs}.attn.{name}": (f"{ours}.mixer.{name}",) for name in DELTA_TENSORS}
        names[f"{theirs}.mlp_norm.weight"] = (f"{ours}.ffn_norm.weight",)
        names |= {f"{theirs}.mlp.{n}_proj.weight": (f"{ours}.ffn.{n}.weight",) for n in ("gate", "up", "down")}
    return names


def delta_somewhere() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        if mixers_of(architecture, GatedDeltaNet):
            return None
        return "its attention stands among layers of Gated DeltaNet, and this design has none"

    return Rule(problem)


def no_sinks() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        return "its windows have no sinks" if any(m.sinks for m in mixers_of(architecture, Attention)) else None

    def fit(mixer: Mixer) -> Mixer:
        return replace(mixer, sinks=0) if isinstance(mixer, Attention) else mixer

    return Rule(problem, lambda a: (with_mixers(a, fit), "windows lose their sinks"))


def heads_fill_the_width() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        for mixer in mixers_of(architecture, Attention):
            if mixer.heads * mixer.head_dim != architecture.width or mixer.value_dim not in (None, mixer.head_dim):
                return f"its head_dim is width / heads, found {mixer.heads} heads of {mixer.head_dim}"
        return None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        width = architecture.width

        def fit(mixer: Mixer) -> Mixer:
            if not isinstance(mixer, Attention):
                return mixer
            fitting = [h for h in range(1, width + 1) if width % h == 0 and (width // h) % 2 == 0]
            heads = min(fitting, key=lambda h: (abs(h - mixer.heads), h))
            kept = max(k for k in range(1, heads + 1) if heads % k == 0 and k <= max(1, mixer.kv_heads))
            return replace(mixer, heads=heads, kv_heads=kept, head_dim=width // heads, value_dim=None)

        return with_mixers(architecture, fit), "attention heads fill the width"

    return Rule(problem, mend)


FLA = Format(
    name="fla",
    title="flash-linear-attention GatedDeltaNetForCausalLM",
    rules=(
        has_mixers(),
        delta_somewhere(),
        only_mixers(Attention, GatedDeltaNet),
        position("rope"),
        no_sinks(),
        heads_fill_the_width(),
        one_of(GatedDeltaNet),
        no_experts(),
        one_ffn_after_each(),
    ),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "gated_deltanet",
    read=read,
    weights=weights,
)
