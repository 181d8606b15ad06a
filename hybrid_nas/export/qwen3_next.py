"""transformers' Qwen3-Next, read only: Gated DeltaNet and gated attention, a mixture of experts after each.

Its attention has a gate and norms on queries and keys and turns a quarter of each head, so nothing with attention can
be written as a Qwen3-Next.
"""

from __future__ import annotations

from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Attention, Block, Mixer, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Imported
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
        notes.append(f"RoPE turns {fields['partial_rotary_factor']:g} of each head; here it turns all of it")
    if key_heads != heads and attending < len(types):
        more = (len(types) - attending) * 2 * (heads - key_heads) * key_dim
        more *= width + delta.conv_kernel
        notes.append(f"{key_heads} key heads for {heads} value heads; here each has its own, {more:,} parameters more")
    if any(isinstance(block.ffn, MoE) for block in blocks):
        notes.append("the router is a softmax whose chosen weights sum to 1, and the shared expert has a gate")
        if fields["shared_expert_intermediate_size"] != hidden:
            notes.append(f"the shared expert has {fields['shared_expert_intermediate_size']} channels; here {hidden}")
    notes += fields.differs(rms_norm_eps=1e-5)
    return Imported(Architecture(width, vocab, tuple(blocks)), fields.count("max_position_embeddings"), tuple(notes))
