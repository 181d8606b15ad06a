"""Hymba's configuration, read only: attention and Mamba in parallel in every layer, most of them in a window.

Its recurrent half is Mamba-1; a parallel hybrid of this project has Mamba-2, so channels, state size and cache are
Hymba's and the recurrence is not. Meta tokens and keys shared between neighbouring layers cannot be expressed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import Imported

DEFAULTS = {
    "num_key_value_heads": None,
    "mamba_expand": 2,
    "mamba_d_conv": 4,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-5,
}
HEAD_DIM = 64


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    width, heads, layers = (fields.count(n) for n in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    inner = int(fields["mamba_expand"] * width)
    whole = Attention(heads, fields["num_key_value_heads"] or heads, width // heads, fields.rope_theta)
    whole = replace(whole, value_dim=inner // heads)
    mamba = Mamba2(inner, HEAD_DIM, fields.count("mamba_d_state"), 1, fields.count("mamba_d_conv"))
    tokens = fields["num_memory_tokens"] or 0
    windowed = replace(whole, window=fields.count("sliding_window"), sinks=tokens)
    everywhere = set(fields["global_attn_idx"] or ())
    ffn = SwiGLU(fields.count("intermediate_size"))
    hybrid = ParallelHybrid(whole, mamba, norm="group", scale="none", fusion="add", value="separate", output="joint")
    blocks = tuple(
        Block(hybrid if i in everywhere else replace(hybrid, attention=windowed), ffn) for i in range(layers)
    )
    vocab = fields.count("vocab_size")
    notes = [
        *fields.untied(vocab, width),
        f"the recurrent half is Mamba-1; here Mamba-2 of as many channels (heads of {HEAD_DIM}), its state as large",
        "both halves read one input projection, and their mean is taken; here each has its own, and the sum is taken",
    ]
    if tokens:
        notes.append(f"{tokens} learned tokens before the text; here the first {tokens} tokens stay visible instead")
    if fields["mamba_inner_layernorms"]:
        notes.append("norms on dt, B and C inside its Mamba; here none")
    if fields["kv_reuse_group"]:
        notes.append("neighbouring layers share keys and values; here each layer keeps its own, so the cache is larger")
    notes += fields.differs(rms_norm_eps=1e-5)
    notes += fields.unread()
    return Imported(Architecture(width, vocab, blocks), fields.count("max_position_embeddings"), tuple(notes))
