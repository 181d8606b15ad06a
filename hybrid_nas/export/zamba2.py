"""transformers' Zamba2: Mamba-2 layers without FFN, and transformer blocks that are shared between places.

What it can hold of ours is a stack of Mamba-2 alone, without an FFN; `layers_block_type` has no place for more:
- attention is there only inside a `hybrid` layer: a block whose input is hidden state and embedding side by side
  (`attention_hidden_size` is twice the width, `head_dim` twice the width over the heads, its softmax scale of half a
  head), shared by every `num_mem_blocks`-th such place, and what it gives goes through a projection into the input of
  the Mamba-2 after it and not into the residual. No weights make that attention on the hidden state alone with a
  residual of its own.
- an FFN is there only inside that block too, with adapters at each place (`adapter_rank`).

Read, a shared block is attention and SwiGLU of the same heads, channels and cache at each of its places, so that cost's
cache is Zamba2's and its parameters are not, which a note says.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, Rule, WeightMap
from hybrid_nas.export.granite import NORM_EPS, mixer_names, model_fields
from hybrid_nas.export.rules import d_ssm_is_whole_widths, first, one_of

DEFAULTS = {
    "vocab_size": 32000, "max_position_embeddings": 4096, "hidden_size": 2560, "mamba_d_state": 64, "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_ngroups": 1, "num_attention_heads": 32, "num_mem_blocks": 1, "tie_word_embeddings": True,
    "use_conv_bias": True, "add_bias_linear": False,
    "rms_norm_eps": 1e-5, "use_mem_rope": False, "rope_theta": 10_000.0, "n_mamba_heads": 8, "time_step_min": 0.001,
}  # fmt: skip
MAMBA = ("mamba", "linear_attention")
OF_SHARED = (
    "adapter_rank", "use_shared_attention_adapter", "use_shared_mlp_adapter", "attention_hidden_size",
    "attention_head_dim", "kv_channels", "num_query_groups", "hybrid_layer_ids", "num_mem_blocks", "n_mamba_heads",
    "num_hidden_layers", "intermediate_size", "ffn_hidden_size", "mamba_d_state", "state_size", "layers_block_type",
)  # fmt: skip
"""Of the shared blocks, which a note of its own describes, and second names of what is read."""
NO_FLOOR = 1e-12
"""Of the time step: Zamba2 clamps it from below, and 0 crashes its initialisation."""


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    inner = int(fields["mamba_expand"] * width)
    head_dim = fields["mamba_headdim"] or inner // fields.count("n_mamba_heads")
    state = fields["state_size"] or fields.count("mamba_d_state")
    mamba = Mamba2(inner, head_dim, state, fields.count("mamba_ngroups"), fields.count("mamba_d_conv"))
    attention = Attention(
        heads,
        fields["num_key_value_heads"] or heads,
        2 * width // heads,
        fields.rope_theta if fields["use_mem_rope"] else None,
    )
    ffn = SwiGLU(fields["ffn_hidden_size"] or fields["intermediate_size"] or 4 * width)
    blocks: list[Block] = []
    shared = 0
    for i, kind in enumerate(fields["layers_block_type"] or ()):
        if kind == "hybrid":
            blocks.append(Block(attention, ffn))
            shared += 1
        elif kind not in MAMBA:
            raise CannotRead(f"layers_block_type: layer {i} is {kind!r}; read are hybrid, {', '.join(MAMBA)}")
        blocks.append(Block(mamba, None))
    if not blocks:
        raise CannotRead("layers_block_type is missing")
    sharing = (
        f"{shared} places share {fields['num_mem_blocks']} transformer blocks, of inputs twice as wide and with "
        "adapters at each place; here each place has a block of its own with inputs of one width"
    )
    vocab, floor = fields.count("vocab_size"), float(fields["time_step_min"])
    notes = [*fields.untied(vocab, width)]
    if shared:
        notes += [sharing, "the shared blocks' FFN has GELU; here it is SiLU"]
    if floor > NO_FLOOR:
        notes.append(f"time_step_min is {floor:g}: its time step is at least that, here it has no bound")
    notes += fields.differs(use_conv_bias=True, add_bias_linear=False, rms_norm_eps=NORM_EPS)
    notes += fields.unread(*OF_SHARED, hidden_act="gelu")
    return Imported(Architecture(width, vocab, tuple(blocks)), fields.count("max_position_embeddings"), tuple(notes))


def mamba2_alone() -> Rule:
    """Every mixer is Mamba-2. There is no change near a design with another."""

    def problem(architecture: Architecture) -> str | None:
        letters = sorted({b.letter for b in architecture.blocks if not isinstance(b.mixer, Mamba2)} - {"-"})
        if not letters:
            return None
        return (
            f"outside its shared blocks it has Mamba-2 alone, found {', '.join(letters)}; a shared block reads the "
            "embedding beside the hidden state, gives to the Mamba-2 after it and not to the residual, and is one set "
            "of weights at several places"
        )

    return Rule(problem)


def no_ffn() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        count = sum(block.ffn is not None for block in architecture.blocks)
        return f"its Mamba-2 layers have no FFN, found {count} with one" if count else None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        blocks = tuple(Block(block.mixer, None) for block in architecture.blocks if block.mixer is not None)
        return (replace(architecture, blocks=blocks), "the FFNs fall away") if blocks else (architecture, "nothing")

    return Rule(problem, mend)


def write(architecture: Architecture, context: int) -> Files:
    mamba: Mamba2 = first(architecture, Mamba2)
    config = {
        **model_fields(architecture, context, "zamba2", "Zamba2ForCausalLM"),
        "hidden_act": "gelu",
        "layers_block_type": ["mamba"] * architecture.depth,
        "use_cache": False,
        "mamba_d_state": mamba.d_state,
        "mamba_d_conv": mamba.conv_kernel,
        "mamba_expand": mamba.d_ssm // architecture.width,
        "mamba_ngroups": mamba.groups,
        "n_mamba_heads": mamba.heads,
        "use_conv_bias": True,
        "add_bias_linear": False,
        "time_step_min": NO_FLOOR,
        "num_attention_heads": 1,
        "num_mem_blocks": 1,
    }
    return {"config.json": json.dumps(config, indent=2) + "\n"}


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {"model.embed_tokens.weight": ("embedding",), "model.final_layernorm.weight": ("norm.weight",)}
    for i, block in enumerate(architecture.blocks):
        names[f"model.layers.{i}.input_layernorm.weight"] = (f"blocks.{i}.mixer_norm.weight",)
        names |= mixer_names(block.mixer, f"blocks.{i}.mixer", f"model.layers.{i}.mamba")
    return names


ZAMBA2 = Format(
    name="zamba2",
    title="transformers Zamba2ForCausalLM",
    rules=(mamba2_alone(), no_ffn(), one_of(Mamba2), d_ssm_is_whole_widths()),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "zamba2",
    read=read,
    weights=weights,
)
