"""transformers' Jamba, read only: Mamba-1 and attention without position encoding at a period, experts at another.

Its Mamba-1 has norms on dt, B and C, and its experts no shared one beside them; neither can be expressed, so nothing
of this project can be written as a Jamba.
"""

from __future__ import annotations

from typing import Any

from hybrid_nas.architecture import FFN, Architecture, Attention, Block, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import Imported
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
    attention = Attention(heads, fields["num_key_value_heads"] or heads, width // heads, None)
    rank = -(-width // 16) if fields["mamba_dt_rank"] == "auto" else fields.count("mamba_dt_rank")
    state = fields.count("mamba_d_state")
    mamba = Mamba1(int(fields["mamba_expand"] * width), state, rank, fields.count("mamba_d_conv"))
    experts = fields.count("num_experts")
    blocks, of_mamba, of_experts = [], 0, 0
    for i in range(fields.count("num_hidden_layers")):
        attends = i % fields["attn_layer_period"] == fields["attn_layer_offset"]
        mixed = experts > 1 and i % fields["expert_layer_period"] == fields["expert_layer_offset"]
        ffn: FFN = MoE(hidden, experts, fields.count("num_experts_per_tok")) if mixed else SwiGLU(hidden)
        blocks.append(Block(attention if attends else mamba, ffn))
        of_mamba, of_experts = of_mamba + (not attends), of_experts + mixed
    notes = [*fields.untied(vocab, width)]
    if of_mamba:
        notes.append(f"norms on dt, B and C of Mamba-1, {of_mamba * (rank + 2 * state):,} parameters; here none")
    if of_experts:
        notes.append(
            f"no shared expert; here each of {of_experts} layers has one, {of_experts * 3 * width * hidden:,} "
            "parameters more, and the router is a sigmoid, not a softmax"
        )
    notes += fields.differs(rms_norm_eps=1e-5, mamba_conv_bias=True, mamba_proj_bias=False)
    return Imported(Architecture(width, vocab, tuple(blocks)), fields.count("max_position_embeddings"), tuple(notes))
