"""transformers' NemotronH: attention without position encoding, Mamba-2 and an FFN without a gate, each a layer.

A block of ours with mixer and FFN is two of its layers. The class never ties embedding and classifier, whatever
`tie_word_embeddings` says, so the file says false and carries the embedding twice. Its time step is clamped from below
by `time_step_min` and not by `time_step_limit`, so the bound is written as 1e-12; 0 crashes its initialisation.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Attention, Block, Mamba2, Mixer, SquaredReLU, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, Rule, WeightMap
from hybrid_nas.export.granite import NORM_EPS, mixer_names
from hybrid_nas.export.rules import first, no_experts, no_window, one_of, only_mixers, position

DEFAULTS = {
    "vocab_size": 131072, "tie_word_embeddings": False, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096, "intermediate_size": 21504,
    "mlp_hidden_act": "relu2", "mlp_bias": False, "ssm_state_size": 128, "mamba_num_heads": 128, "mamba_head_dim": 64,
    "n_groups": 8, "conv_kernel": 4, "use_conv_bias": True, "use_bias": False, "mamba_proj_bias": False,
    "layer_norm_epsilon": 1e-5, "time_step_min": 0.001, "attention_bias": False,
}  # fmt: skip
NOT_USED = (
    "num_hidden_layers", "hybrid_override_pattern", "layer_types", "layers_block_type", "expand",
    "mtp_layers_block_type", "n_routed_experts", "n_shared_experts", "moe_intermediate_size",
    "moe_shared_expert_intermediate_size", "moe_latent_size", "moe_shared_expert_overlap", "num_experts_per_tok",
    "routed_scaling_factor", "n_group", "topk_group", "norm_topk_prob", "time_step_limit",
)  # fmt: skip
"""What the layers already say, and fields of the experts, which are refused where a layer has them."""
SYMBOLS = {"M": "linear_attention", "*": "full_attention", "-": "mlp", "E": "moe"}
OLD_NAMES = {"mamba": "linear_attention", "attention": "full_attention"}


def layers_of(architecture: Architecture) -> list[tuple[str, int]]:
    """(pattern symbol, block) of each of its layers."""
    layers = []
    for i, block in enumerate(architecture.blocks):
        if block.mixer is not None:
            layers.append(("*" if isinstance(block.mixer, Attention) else "M", i))
        if block.ffn is not None:
            layers.append(("-", i))
    return layers


def write(architecture: Architecture, context: int) -> Files:
    attention: Attention = first(architecture, Attention) or Attention(1, 1, architecture.width, None)
    mamba: Mamba2 = first(architecture, Mamba2) or Mamba2(architecture.width, architecture.width, 16)
    ffn = next((block.ffn for block in architecture.blocks if block.ffn is not None), SquaredReLU(architecture.width))
    config = {
        "architectures": ["NemotronHForCausalLM"],
        "model_type": "nemotron_h",
        "vocab_size": architecture.vocab,
        "hidden_size": architecture.width,
        "hybrid_override_pattern": "".join(symbol for symbol, _ in layers_of(architecture)),
        "num_hidden_layers": len(layers_of(architecture)),
        "max_position_embeddings": context,
        "tie_word_embeddings": False,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "intermediate_size": ffn.hidden,
        "mlp_hidden_act": "relu2",
        "mlp_bias": False,
        "mamba_num_heads": mamba.heads,
        "mamba_head_dim": mamba.head_dim,
        "ssm_state_size": mamba.d_state,
        "n_groups": mamba.groups,
        "conv_kernel": mamba.conv_kernel,
        "use_conv_bias": True,
        "use_bias": False,
        "mamba_proj_bias": False,
        "mamba_hidden_act": "silu",
        "chunk_size": 128,
        "time_step_min": 1e-12,
        "layer_norm_epsilon": NORM_EPS,
        "use_cache": first(architecture, Attention) is not None,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return {"config.json": json.dumps(config, indent=2) + "\n"}


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    types = fields["layers_block_type"] or fields["layer_types"]
    if types is None:
        pattern = fields["hybrid_override_pattern"]
        if not pattern:
            raise CannotRead("layers_block_type or hybrid_override_pattern must name the layers, found neither")
        types = [SYMBOLS.get(symbol, symbol) for symbol in pattern]
    attention = Attention(
        fields.count("num_attention_heads"), fields.count("num_key_value_heads"), fields.count("head_dim"), None
    )
    heads, head_dim = fields.count("mamba_num_heads"), fields.count("mamba_head_dim")
    mamba = Mamba2(
        heads * head_dim,
        head_dim,
        fields.count("ssm_state_size"),
        fields.count("n_groups"),
        fields.count("conv_kernel"),
    )
    ffn = SquaredReLU(fields.count("intermediate_size"))
    mixers: dict[str, Mixer] = {"linear_attention": mamba, "full_attention": attention}
    blocks: list[Block] = []
    for i, name in enumerate(types):
        kind = OLD_NAMES.get(name, name)
        if kind in mixers:
            blocks.append(Block(mixers[kind], None))
        elif kind != "mlp":
            raise CannotRead(f"layer {i} is {kind!r}; read are linear_attention, full_attention and mlp (M, * and -)")
        elif blocks and blocks[-1].ffn is None:
            blocks[-1] = replace(blocks[-1], ffn=ffn)
        else:
            blocks.append(Block(None, ffn))
    width, vocab = fields.count("hidden_size"), fields.count("vocab_size")
    floor = float(fields["time_step_min"])
    clamp = (f"time_step_min is {floor:g}: its time step is at least that, here it has no bound",)
    return Imported(
        Architecture(width, vocab, tuple(blocks)),
        fields.count("max_position_embeddings"),
        (
            *fields.untied(vocab, width),
            *(clamp if floor > 1e-9 else ()),
            *fields.differs(
                mlp_hidden_act="relu2",
                layer_norm_epsilon=NORM_EPS,
                use_conv_bias=True,
                use_bias=False,
                mamba_proj_bias=False,
                mlp_bias=False,
                attention_bias=False,
            ),
            *fields.unread(*NOT_USED),
        ),
    )


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {
        "model.embeddings.weight": ("embedding",),
        "model.norm_f.weight": ("norm.weight",),
        "lm_head.weight": ("embedding",),
    }
    for layer, (symbol, i) in enumerate(layers_of(architecture)):
        ours, theirs = f"blocks.{i}", f"model.layers.{layer}"
        if symbol == "-":
            names[f"{theirs}.norm.weight"] = (f"{ours}.ffn_norm.weight",)
            names |= {f"{theirs}.mixer.{n}_proj.weight": (f"{ours}.ffn.{n}.weight",) for n in ("up", "down")}
        else:
            names[f"{theirs}.norm.weight"] = (f"{ours}.mixer_norm.weight",)
            names |= mixer_names(architecture.blocks[i].mixer, f"{ours}.mixer", f"{theirs}.mixer")
    return names


def without_gate() -> Rule:
    """FFNs have no gate, and one size. A SwiGLU becomes one of equal parameters."""

    def fit(ffn: FFN | None) -> FFN | None:
        return SquaredReLU(3 * ffn.hidden // 2) if isinstance(ffn, SwiGLU) else ffn

    def problem(architecture: Architecture) -> str | None:
        gated = [i for i, block in enumerate(architecture.blocks) if isinstance(block.ffn, SwiGLU)]
        if gated:
            return f"its FFN is up, squared ReLU, down, without a gate; found SwiGLU in {len(gated)} blocks"
        if len({block.ffn for block in architecture.blocks} - {None}) > 1:
            return "all its FFN layers share one size"
        return None

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        sizes = [ffn for block in architecture.blocks if (ffn := fit(block.ffn)) is not None]
        usual = max(set(sizes), key=lambda ffn: (sizes.count(ffn), -ffn.hidden))
        blocks = tuple(replace(b, ffn=None if b.ffn is None else usual) for b in architecture.blocks)
        return replace(architecture, blocks=blocks), f"FFNs become squared ReLU of {usual.hidden} channels"

    return Rule(problem, mend)


NEMOTRON_H = Format(
    name="nemotron-h",
    title="transformers NemotronHForCausalLM",
    rules=(
        only_mixers(Attention, Mamba2),
        no_window(),
        position("none"),
        one_of(Attention),
        one_of(Mamba2),
        no_experts(),
        without_gate(),
    ),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "nemotron_h",
    read=read,
    weights=weights,
    extra_params=lambda architecture: {"lm_head.weight": architecture.vocab * architecture.width},
)
