"""transformers' Qwen3-Next: Gated DeltaNet and gated attention, a mixture of experts or a SwiGLU after each.

Its attention has a gate and norms on queries and keys and turns a part of each head, so of a design of this project
only layers of Gated DeltaNet can be written, with a SwiGLU after each (`num_experts` 0; the default is 512). Its norms
multiply by one more than their weight, and its projections lie head by head.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Attention, Block, Mixer, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Files, Format, Imported, Interleaved, LessOne, Rule, WeightMap
from hybrid_nas.export.granite import NORM_EPS
from hybrid_nas.export.rules import first, mixers_of, no_experts, one_ffn_after_each, one_of
from hybrid_nas.moe import MoE
from hybrid_nas.recurrent import GatedDeltaNet

DEFAULTS = {
    "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 48,
    "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "head_dim": 256, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32, "decoder_sparse_step": 1,
    "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_experts_per_tok": 10,
    "num_experts": 512, "full_attention_interval": 4, "partial_rotary_factor": 0.25,
}  # fmt: skip
SECOND = ("num_experts_per_tok", "shared_expert_intermediate_size", "decoder_sparse_step", "mlp_only_layers")
"""Of the experts, which are read where a layer has them."""


def write(architecture: Architecture, context: int) -> Files:
    delta: GatedDeltaNet = first(architecture, GatedDeltaNet)
    ffn = architecture.blocks[0].ffn
    assert isinstance(ffn, SwiGLU)
    config = {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "vocab_size": architecture.vocab,
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.depth,
        "layer_types": ["linear_attention"] * architecture.depth,
        "max_position_embeddings": context,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 2 * (architecture.width // 2) or 2,
        "partial_rotary_factor": 1.0,
        "linear_num_key_heads": delta.heads,
        "linear_num_value_heads": delta.heads,
        "linear_key_head_dim": delta.key_dim,
        "linear_value_head_dim": delta.value_dim,
        "linear_conv_kernel_dim": delta.conv_kernel,
        "num_experts": 0,
        "intermediate_size": ffn.hidden,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "tie_word_embeddings": True,
        "use_cache": False,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return {"config.json": json.dumps(config, indent=2) + "\n"}


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {"model.embed_tokens.weight": ("embedding",), "model.norm.weight": LessOne("norm.weight")}
    for i, block in enumerate(architecture.blocks):
        assert isinstance(block.mixer, GatedDeltaNet)
        heads, mixer = block.mixer.heads, f"blocks.{i}.mixer"
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        linear = f"{theirs}.linear_attn"
        names |= {
            f"{theirs}.input_layernorm.weight": LessOne(f"{ours}.mixer_norm.weight"),
            f"{linear}.in_proj_qkvz.weight": Interleaved(tuple(f"{mixer}.{n}_proj.weight" for n in "qkvg"), heads),
            f"{linear}.in_proj_ba.weight": Interleaved(tuple(f"{mixer}.{n}_proj.weight" for n in "ba"), heads),
            f"{linear}.conv1d.weight": tuple(f"{mixer}.{n}_conv1d.weight" for n in "qkv"),
            f"{linear}.A_log": (f"{mixer}.A_log",),
            f"{linear}.dt_bias": (f"{mixer}.dt_bias",),
            f"{linear}.norm.weight": (f"{mixer}.o_norm.weight",),
            f"{linear}.out_proj.weight": (f"{mixer}.o_proj.weight",),
            f"{theirs}.post_attention_layernorm.weight": LessOne(f"{ours}.ffn_norm.weight"),
            **{f"{theirs}.mlp.{n}_proj.weight": (f"{ours}.ffn.{n}.weight",) for n in ("gate", "up", "down")},
        }
    return names


def delta_alone() -> Rule:
    def problem(architecture: Architecture) -> str | None:
        if all(isinstance(block.mixer, GatedDeltaNet) for block in architecture.blocks):
            return None
        return (
            "its attention is gated, with norms on queries and keys, and turns part of each head, so only a stack of "
            f"Gated DeltaNet is one of its models, found {architecture.layout}"
        )

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        deltas = mixers_of(architecture, GatedDeltaNet)
        if not deltas:
            return architecture, "nothing"
        usual = max(deltas, key=deltas.count)
        blocks = tuple(
            b if isinstance(b.mixer, GatedDeltaNet) else replace(b, mixer=usual) for b in architecture.blocks
        )
        return replace(architecture, blocks=blocks), "every layer becomes Gated DeltaNet"

    return Rule(problem, mend)


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    width, vocab, layers = (fields.count(name) for name in ("hidden_size", "vocab_size", "num_hidden_layers"))
    every = fields.count("full_attention_interval")
    types = fields["layer_types"] or [
        "full_attention" if (i + 1) % every == 0 else "linear_attention" for i in range(layers)
    ]
    attention = Attention(
        fields.count("num_attention_heads"),
        fields.count("num_key_value_heads"),
        fields.count("head_dim"),
        fields.rope_theta,
    )
    heads, key_heads = fields.count("linear_num_value_heads"), fields.count("linear_num_key_heads")
    key_dim = fields.count("linear_key_head_dim")
    delta = GatedDeltaNet(heads, key_dim, fields.count("linear_value_head_dim"), fields.count("linear_conv_kernel_dim"))
    mixers: dict[str, Mixer] = {"full_attention": attention, "linear_attention": delta}
    dense = SwiGLU(fields.count("intermediate_size"))
    experts = fields["num_experts"]
    hidden = fields.count("moe_intermediate_size")
    blocks = []
    for i, kind in enumerate(types):
        if kind not in mixers:
            raise CannotRead(f"layer_types: layer {i} is {kind!r}; read are {', '.join(mixers)}")
        mixed = experts and i not in (fields["mlp_only_layers"] or ()) and (i + 1) % fields["decoder_sparse_step"] == 0
        ffn: FFN = MoE(hidden, experts, fields.count("num_experts_per_tok")) if mixed else dense
        blocks.append(Block(mixers[kind], ffn))
    attending = sum(kind == "full_attention" for kind in types)
    notes = [*fields.untied(vocab, width)]
    if attending:
        inner = attention.heads * attention.head_dim
        notes.append(
            f"attention with a gate of {inner} channels and norms on queries and keys, "
            f"{attending * (width * inner + 2 * attention.head_dim):,} parameters; here without"
        )
        notes.append(f"RoPE turns {fields.rope_of('partial_rotary_factor'):g} of each head; here it turns all of it")
    if key_heads != heads and attending < len(types):
        more = (len(types) - attending) * 2 * (heads - key_heads) * key_dim
        more *= width + delta.conv_kernel
        notes.append(f"{key_heads} key heads for {heads} value heads; here each has its own, {more:,} parameters more")
    if any(isinstance(block.ffn, MoE) for block in blocks):
        notes.append("the router is a softmax whose chosen weights sum to 1, and the shared expert has a gate")
        if fields["shared_expert_intermediate_size"] != hidden:
            notes.append(f"the shared expert has {fields['shared_expert_intermediate_size']} channels; here {hidden}")
    notes += fields.differs(rms_norm_eps=NORM_EPS)
    notes += fields.unread(*SECOND, norm_topk_prob=True)
    return Imported(Architecture(width, vocab, tuple(blocks)), fields.count("max_position_embeddings"), tuple(notes))


QWEN3_NEXT = Format(
    name="qwen3-next",
    title="transformers Qwen3NextForCausalLM",
    rules=(delta_alone(), one_of(GatedDeltaNet), no_experts(), one_ffn_after_each()),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "qwen3_next",
    read=read,
    weights=weights,
)
