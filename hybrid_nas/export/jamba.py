"""transformers' Jamba: Mamba-1 with norms on dt, B and C, and attention without position encoding at a period.

Attention stands in each layer i with i % attn_layer_period == attn_layer_offset. Its experts have no shared one beside
them and a softmax over all of them for a router, so a mixture of experts of this project is none of its layers.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Attention, Block, SwiGLU
from hybrid_nas.export.bamba import ffn_names
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import Files, Format, Imported, Rule, WeightMap
from hybrid_nas.export.granite import ATTENTION_TENSORS, NORM_EPS, attention_fields, model_fields
from hybrid_nas.export.rules import (
    d_ssm_is_whole_widths,
    first,
    has_mixers,
    mixers_of,
    no_experts,
    no_window,
    one_ffn_after_each,
    one_of,
    only_mixers,
    position,
    with_mixers,
)
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import Mamba1

DEFAULTS = {
    "vocab_size": 65536, "tie_word_embeddings": False, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 262144,
    "num_experts_per_tok": 2, "num_experts": 16, "expert_layer_period": 2, "expert_layer_offset": 1,
    "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2,
    "mamba_dt_rank": "auto", "rms_norm_eps": 1e-6, "mamba_conv_bias": True, "mamba_proj_bias": False,
}  # fmt: skip


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    width, vocab, hidden = (fields.count(name) for name in ("hidden_size", "vocab_size", "intermediate_size"))
    heads = fields.count("num_attention_heads")
    head_dim = fields["head_dim"] or width // heads
    attention = Attention(heads, fields["num_key_value_heads"] or heads, head_dim, None)
    rank = -(-width // 16) if fields["mamba_dt_rank"] == "auto" else fields.count("mamba_dt_rank")
    state = fields.count("mamba_d_state")
    mamba = Mamba1(int(fields["mamba_expand"] * width), state, rank, fields.count("mamba_d_conv"), norms=True)
    experts = fields.count("num_experts")
    blocks, of_experts = [], 0
    for i in range(fields.count("num_hidden_layers")):
        attends = i % fields["attn_layer_period"] == fields["attn_layer_offset"]
        mixed = experts > 1 and i % fields["expert_layer_period"] == fields["expert_layer_offset"]
        ffn: FFN = MoE(hidden, experts, fields.count("num_experts_per_tok")) if mixed else SwiGLU(hidden)
        blocks.append(Block(attention if attends else mamba, ffn))
        of_experts += mixed
    notes = [*fields.untied(vocab, width)]
    if of_experts:
        notes.append(
            f"no shared expert; here each of {of_experts} layers has one, {of_experts * 3 * width * hidden:,} "
            "parameters more, and the router is a sigmoid, not a softmax"
        )
    notes += fields.differs(rms_norm_eps=NORM_EPS, mamba_conv_bias=True, mamba_proj_bias=False)
    notes += fields.unread("num_experts_per_tok", "expert_layer_period", "expert_layer_offset")
    return Imported(Architecture(width, vocab, tuple(blocks)), fields.count("max_position_embeddings"), tuple(notes))


def period_of(architecture: Architecture) -> tuple[int, int]:
    """The period and offset whose attention layers are nearest to the model's: the fewest layers differ. A period
    beyond the depth is no attention at all."""
    at = {i for i, block in enumerate(architecture.blocks) if isinstance(block.mixer, Attention)}
    depth = architecture.depth
    choices = [(depth + 1, depth)] if not at else []
    choices += [(period, offset) for period in range(1, depth + 1) for offset in range(period) if offset < depth]

    def differ(choice: tuple[int, int]) -> int:
        return len(at ^ set(range(choice[1], depth, choice[0])))

    return min(choices, key=lambda choice: (differ(choice), choice))


def placed(architecture: Architecture) -> list[bool]:
    """Which layers are attention by `period_of`."""
    period, offset = period_of(architecture)
    return [i % period == offset for i in range(architecture.depth)]


def at_a_period() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        found = [isinstance(block.mixer, Attention) for block in architecture.blocks]
        if found == placed(architecture):
            return None
        at = ", ".join(str(i) for i, attends in enumerate(found) if attends)
        return f"its attention stands at a period (attn_layer_period, attn_layer_offset), found layers {at}"

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        attention, mamba = first(architecture, Attention), first(architecture, Mamba1)
        mixers = [attention if attends else mamba for attends in placed(architecture)]
        if None in mixers:
            return architecture, "nothing"
        blocks = tuple(replace(b, mixer=mixer) for b, mixer in zip(architecture.blocks, mixers, strict=True))
        period, offset = period_of(architecture)
        return replace(architecture, blocks=blocks), f"attention in every layer i with i % {period} == {offset}"

    return Rule(problem, mend)


def norms_on_the_selected() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        count = sum(not mixer.norms for mixer in mixers_of(architecture, Mamba1))
        return f"its Mamba-1 has norms on dt, B and C, found {count} layers without" if count else None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        changed = with_mixers(architecture, lambda m: replace(m, norms=True) if isinstance(m, Mamba1) else m)
        return changed, "Mamba-1 gets norms on dt, B and C"

    return Rule(problem, mend)


def write(architecture: Architecture, context: int) -> Files:
    ffn, mamba = architecture.blocks[0].ffn, first(architecture, Mamba1)
    assert isinstance(ffn, SwiGLU)
    mamba = mamba or Mamba1(architecture.width, 16, 1)  # sizes that pass, for a stack without
    period, offset = period_of(architecture)
    config = {
        **model_fields(architecture, context, "jamba", "JambaForCausalLM"),
        **attention_fields(architecture),
        "attn_layer_period": period,
        "attn_layer_offset": offset,
        "intermediate_size": ffn.hidden,
        "num_experts": 1,
        "num_experts_per_tok": 1,
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "mamba_d_state": mamba.d_state,
        "mamba_d_conv": mamba.conv_kernel,
        "mamba_expand": mamba.d_ssm // architecture.width,
        "mamba_dt_rank": mamba.dt_rank,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
    }
    return {"config.json": json.dumps(config, indent=2) + "\n"}


MAMBA_TENSORS = {
    **{
        name: name
        for name in (
            "in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias",
            "A_log", "D", "out_proj.weight",
        )
    },
    "dt_layernorm.weight": "dt_norm.weight",
    "b_layernorm.weight": "B_norm.weight",
    "c_layernorm.weight": "C_norm.weight",
}  # fmt: skip
"""Names in Jamba's mixer -> names in ours."""


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {"model.embed_tokens.weight": ("embedding",), "model.final_layernorm.weight": ("norm.weight",)}
    for i, block in enumerate(architecture.blocks):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        attends = isinstance(block.mixer, Attention)
        tensors = {name: name for name in ATTENTION_TENSORS} if attends else MAMBA_TENSORS
        module = "self_attn" if attends else "mamba"
        names[f"{theirs}.input_layernorm.weight"] = (f"{ours}.mixer_norm.weight",)
        names |= {f"{theirs}.{module}.{name}": (f"{ours}.mixer.{own}",) for name, own in tensors.items()}
        names |= ffn_names(ours, theirs)
    return names


JAMBA = Format(
    name="jamba",
    title="transformers JambaForCausalLM",
    rules=(
        has_mixers(),
        only_mixers(Attention, Mamba1),
        no_window(),
        position("none"),
        one_of(Attention),
        norms_on_the_selected(),
        one_of(Mamba1),
        d_ssm_is_whole_widths(Mamba1),
        at_a_period(),
        no_experts(
            "its experts have no shared one beside them and weights by a softmax over all of them, ours have one and a "
            "sigmoid each, so no weights make them equal"
        ),
        one_ffn_after_each(),
    ),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "jamba",
    read=read,
    weights=weights,
)
