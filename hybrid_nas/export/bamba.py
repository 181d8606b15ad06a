"""transformers' Bamba: any interleaving of full attention with RoPE and Mamba-2, a SwiGLU after each.

Its configuration forces half-rotated heads unless `rope_parameters` names the factor; other readers look at
`partial_rotary_factor` and `attn_rotary_emb`, so all three are written. `pad_token_id` 0 would freeze a row of the
embedding, so it is null.
"""

from __future__ import annotations

import json
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, WeightMap
from hybrid_nas.export.granite import (
    NORM_EPS,
    attention_fields,
    mamba_fields,
    mixer_names,
    model_fields,
    read_attention,
    read_layers,
    read_mamba,
)
from hybrid_nas.export.rules import (
    d_ssm_is_whole_widths,
    first,
    has_mixers,
    no_experts,
    no_window,
    one_ffn_after_each,
    one_of,
    only_mixers,
    position,
)

DEFAULTS = {
    "vocab_size": 128000, "tie_word_embeddings": False, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 262144, "mamba_n_heads": 128, "mamba_d_head": "auto", "mamba_n_groups": 1,
    "mamba_d_state": 256, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False,
    "attention_bias": False, "mlp_bias": False,
}  # fmt: skip


def write(architecture: Architecture, context: int) -> Files:
    ffn = architecture.blocks[0].ffn
    assert isinstance(ffn, SwiGLU)
    attention: Attention | None = first(architecture, Attention)
    config = {
        **model_fields(architecture, context, "bamba", "BambaForCausalLM"),
        "attn_layer_indices": [i for i, b in enumerate(architecture.blocks) if isinstance(b.mixer, Attention)],
        **attention_fields(architecture),
        "partial_rotary_factor": 1.0,
        "attn_rotary_emb": architecture.width if attention is None else attention.head_dim,
        "intermediate_size": ffn.hidden,
        "mlp_bias": False,
        "num_logits_to_keep": 1,
        **mamba_fields(architecture),
    }
    return {"config.json": json.dumps(config, indent=2) + "\n"}


def rotary_factor(fields: Fields, head_dim: int) -> float:
    """The share of a head that Bamba rotates: half, unless `rope_parameters` says otherwise."""
    fields.seen.add("partial_rotary_factor")
    parameters = fields.config.get("rope_parameters") or {}
    if "partial_rotary_factor" in parameters:
        return float(parameters["partial_rotary_factor"])
    del head_dim
    return 0.5


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    layers = fields.count("num_hidden_layers")
    at = fields["attn_layer_indices"] or []
    if any(not 0 <= i < layers for i in at):
        raise CannotRead(f"attn_layer_indices: layers are 0 to {layers - 1}, found {at}")
    head_dim = fields["head_dim"] or fields.count("hidden_size") // fields.count("num_attention_heads")
    factor = rotary_factor(fields, head_dim)
    attention = read_attention(fields, fields.rope_theta if factor else None)
    mixers = read_layers(["attention" if i in at else "mamba" for i in range(layers)], attention, read_mamba(fields))
    ffn = SwiGLU(fields.count("intermediate_size"))
    width, vocab = fields.count("hidden_size"), fields.count("vocab_size")
    partial = () if factor in (0, 1) or not at else (f"RoPE turns {factor:g} of each head; here it turns all of it",)
    return Imported(
        Architecture(width, vocab, tuple(Block(mixer, ffn) for mixer in mixers)),
        fields.count("max_position_embeddings"),
        (
            *fields.untied(vocab, width),
            *partial,
            *fields.differs(
                rms_norm_eps=NORM_EPS,
                mamba_conv_bias=True,
                mamba_proj_bias=False,
                attention_bias=False,
                mlp_bias=False,
            ),
            *fields.unread("attn_rotary_emb"),
        ),
    )


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {"model.embed_tokens.weight": ("embedding",), "model.final_layernorm.weight": ("norm.weight",)}
    for i, block in enumerate(architecture.blocks):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        module = "self_attn" if isinstance(block.mixer, Attention) else "mamba"
        names[f"{theirs}.input_layernorm.weight"] = (f"{ours}.mixer_norm.weight",)
        names |= mixer_names(block.mixer, f"{ours}.mixer", f"{theirs}.{module}")
        names |= ffn_names(ours, theirs)
    return names


def ffn_names(ours: str, theirs: str) -> WeightMap:
    """The SwiGLU of Bamba and Falcon-H1, with its norm."""
    return {
        f"{theirs}.pre_ff_layernorm.weight": (f"{ours}.ffn_norm.weight",),
        **{f"{theirs}.feed_forward.{n}_proj.weight": (f"{ours}.ffn.{n}.weight",) for n in ("gate", "up", "down")},
    }


BAMBA = Format(
    name="bamba",
    title="transformers BambaForCausalLM",
    rules=(
        has_mixers(),
        only_mixers(Attention, Mamba2),
        no_window(),
        position("rope"),
        one_of(Attention),
        one_of(Mamba2),
        d_ssm_is_whole_widths(),
        no_experts(),
        one_ffn_after_each(),
    ),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "bamba",
    read=read,
    weights=weights,
)
