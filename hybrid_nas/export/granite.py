"""transformers' GraniteMoeHybrid: any interleaving of full attention and Mamba-2, a SwiGLU after each.

Written out because their defaults are silent traps: the softmax scale (`attention_multiplier`, default 1), the number
of experts (default 8), RoPE (default none), the norms' epsilon. Layers carry the older names (`mamba`, `attention`),
which every version reads, and `rope_theta` stands at the top level too, for the same reason. Where B and C have groups
the gated norm is by group, as here, since a version after 5.6 (which norms over all channels) and before 5.23.
"""

from __future__ import annotations

import json
from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Attention, Block, Mamba2, Mixer, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, WeightMap
from hybrid_nas.export.rules import (
    d_ssm_is_whole_widths,
    first,
    has_mixers,
    no_experts,
    no_window,
    one_ffn_after_each,
    one_of,
    only_mixers,
)
from hybrid_nas.moe import MoE

NORM_EPS = 1e-5
DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "shared_intermediate_size": 1024, "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 11008,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "attention_multiplier": 1.0,
    "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0, "mamba_n_heads": 128,
    "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_head": "auto", "mamba_d_conv": 4, "mamba_expand": 2,
    "mamba_conv_bias": True, "mamba_proj_bias": False, "attention_bias": False,
}  # fmt: skip
ATTENTION = ("attention", "full_attention")
MAMBA = ("mamba", "linear_attention")


def mamba_fields(architecture: Architecture) -> dict[str, Any]:
    """The Mamba-2 fields that Granite, Bamba and Falcon-H1 share; a stack without Mamba-2 gets sizes that pass."""
    mamba: Mamba2 = first(architecture, Mamba2) or Mamba2(architecture.width, architecture.width, 16)
    return {
        "mamba_n_heads": mamba.heads,
        "mamba_d_head": mamba.head_dim,
        "mamba_n_groups": mamba.groups,
        "mamba_d_state": mamba.d_state,
        "mamba_d_conv": mamba.conv_kernel,
        "mamba_expand": mamba.d_ssm // architecture.width,
        "mamba_chunk_size": 256,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
    }


def attention_fields(architecture: Architecture) -> dict[str, Any]:
    """The attention fields that the transformers classes share; a stack without attention gets sizes that pass."""
    attention: Attention = first(architecture, Attention) or Attention(1, 1, architecture.width, None)
    fields: dict[str, Any] = {
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "attention_bias": False,
        "attention_dropout": 0.0,
    }
    if attention.heads * attention.head_dim != architecture.width:
        fields["head_dim"] = attention.head_dim
    if attention.rope_theta is not None:
        fields["rope_theta"] = attention.rope_theta
        fields["rope_parameters"] = {
            "rope_type": "default",
            "rope_theta": attention.rope_theta,
            "partial_rotary_factor": 1.0,
        }
    return fields


def model_fields(architecture: Architecture, context: int, model_type: str, class_name: str) -> dict[str, Any]:
    return {
        "architectures": [class_name],
        "model_type": model_type,
        "vocab_size": architecture.vocab,
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.depth,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "use_cache": first(architecture, Attention) is not None,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def write(architecture: Architecture, context: int) -> Files:
    attention: Attention | None = first(architecture, Attention)
    ffn = architecture.blocks[0].ffn
    assert isinstance(ffn, SwiGLU)
    head_dim = architecture.width if attention is None else attention.head_dim
    config = {
        **model_fields(architecture, context, "granitemoehybrid", "GraniteMoeHybridForCausalLM"),
        "layer_types": ["attention" if isinstance(b.mixer, Attention) else "mamba" for b in architecture.blocks],
        "position_embedding_type": "rope" if attention is not None and attention.rope_theta is not None else "nope",
        **attention_fields(architecture),
        "attention_multiplier": head_dim**-0.5,
        "embedding_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "logits_scaling": 1.0,
        "shared_intermediate_size": ffn.hidden,
        "intermediate_size": ffn.hidden,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
        **mamba_fields(architecture),
    }
    return {"config.json": json.dumps(config, indent=2) + "\n"}


def read_mamba(fields: Fields, d_ssm: int | None = None) -> Mamba2:
    """The Mamba-2 mixer of a Granite, Bamba or Falcon-H1 configuration."""
    heads = fields.count("mamba_n_heads")
    inner = d_ssm or int(fields["mamba_expand"] * fields.count("hidden_size"))
    head_dim = inner // heads if fields["mamba_d_head"] == "auto" else fields.count("mamba_d_head")
    if heads * head_dim != inner:
        raise CannotRead(f"mamba_n_heads x mamba_d_head must be d_ssm, found {heads} x {head_dim} and {inner}")
    return Mamba2(
        d_ssm=inner,
        head_dim=head_dim,
        d_state=fields.count("mamba_d_state"),
        groups=fields.count("mamba_n_groups"),
        conv_kernel=fields.count("mamba_d_conv"),
    )


def read_attention(fields: Fields, rope_theta: float | None) -> Attention:
    heads = fields.count("num_attention_heads")
    head_dim = fields["head_dim"] or fields.count("hidden_size") // heads
    return Attention(heads, fields["num_key_value_heads"] or heads, head_dim, rope_theta)


def read_layers(types: list[str], attention: Attention, mamba: Mamba2) -> list[Mixer]:
    mixers: list[Mixer] = []
    for i, kind in enumerate(types):
        if kind not in (*ATTENTION, *MAMBA):
            raise CannotRead(f"layer_types: layer {i} is {kind!r}; read are {', '.join((*ATTENTION, *MAMBA))}")
        mixers.append(attention if kind in ATTENTION else mamba)
    return mixers


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    layers = fields.count("num_hidden_layers")
    types = fields["layer_types"] or fields["layers_block_type"] or ["mamba"] * layers
    attention = read_attention(fields, fields.rope_theta if fields["position_embedding_type"] == "rope" else None)
    mixers = read_layers(types, attention, read_mamba(fields))
    ffn, mixed = _read_ffn(fields)
    width, vocab = fields.count("hidden_size"), fields.count("vocab_size")
    return Imported(
        Architecture(width, vocab, tuple(Block(mixer, ffn) for mixer in mixers)),
        fields.count("max_position_embeddings"),
        (
            *fields.untied(vocab, width),
            *mixed,
            *fields.differs(
                attention_multiplier=attention.head_dim**-0.5,
                embedding_multiplier=1.0,
                residual_multiplier=1.0,
                logits_scaling=1.0,
                rms_norm_eps=NORM_EPS,
                mamba_conv_bias=True,
                mamba_proj_bias=False,
                attention_bias=False,
            ),
            *fields.unread("intermediate_size", "num_experts_per_tok", "layers_block_type"),
        ),
    )


def _read_ffn(fields: Fields) -> tuple[FFN, tuple[str, ...]]:
    """The FFN of each layer, and how it differs: Granite's experts have a softmax router and a shared expert of its
    own size."""
    shared = fields.count("shared_intermediate_size")
    if not fields["num_local_experts"]:
        return SwiGLU(shared), ()
    hidden = fields.count("intermediate_size")
    ffn = MoE(hidden, fields.count("num_local_experts"), fields.count("num_experts_per_tok"))
    notes = ["the router is a softmax over the chosen experts; here it is a sigmoid"]
    if shared != hidden:
        notes.append(f"the shared expert has {shared} channels; here it has {hidden}, as the others")
    return ffn, tuple(notes)


MAMBA_TENSORS = (
    "in_proj.weight",
    "conv1d.weight",
    "conv1d.bias",
    "A_log",
    "D",
    "dt_bias",
    "norm.weight",
    "out_proj.weight",
)
ATTENTION_TENSORS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")


def mixer_names(mixer: Mixer | None, ours: str, theirs: str) -> WeightMap:
    """Attention and Mamba-2 under transformers' names, which are also this project's."""
    names = ATTENTION_TENSORS if isinstance(mixer, Attention) else MAMBA_TENSORS
    return {f"{theirs}.{name}": (f"{ours}.{name}",) for name in names}


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {"model.embed_tokens.weight": ("embedding",), "model.norm.weight": ("norm.weight",)}
    for i, block in enumerate(architecture.blocks):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        module = "self_attn" if isinstance(block.mixer, Attention) else "mamba"
        names[f"{theirs}.input_layernorm.weight"] = (f"{ours}.mixer_norm.weight",)
        names |= mixer_names(block.mixer, f"{ours}.mixer", f"{theirs}.{module}")
        names[f"{theirs}.post_attention_layernorm.weight"] = (f"{ours}.ffn_norm.weight",)
        names[f"{theirs}.shared_mlp.input_linear.weight"] = (f"{ours}.ffn.gate.weight", f"{ours}.ffn.up.weight")
        names[f"{theirs}.shared_mlp.output_linear.weight"] = (f"{ours}.ffn.down.weight",)
    return names


GRANITE = Format(
    name="granite",
    title="transformers GraniteMoeHybridForCausalLM",
    rules=(
        has_mixers(),
        only_mixers(Attention, Mamba2),
        no_window(),
        one_of(Attention),
        one_of(Mamba2),
        d_ssm_is_whole_widths(),
        no_experts(
            "its router weighs the chosen experts by a softmax over their scores and has no balancing bias, ours by a "
            "sigmoid each, so no weights make them equal"
        ),
        one_ffn_after_each(),
    ),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "granitemoehybrid",
    read=read,
    weights=weights,
)
