"""transformers' Zamba2, read only: Mamba-2 layers without FFN, and transformer blocks that are shared between places.

A shared block reads hidden state and embedding side by side and has small adapters of its own at each place; neither
can be expressed. It is read as attention and SwiGLU of the same heads, channels and cache at each of its places, so
that cost's cache is Zamba2's and its parameters are not, which a note says.
"""

from __future__ import annotations

from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import CannotRead, Imported

DEFAULTS = {
    "vocab_size": 32000, "max_position_embeddings": 4096, "hidden_size": 2560, "mamba_d_state": 64, "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_ngroups": 1, "num_attention_heads": 32, "num_mem_blocks": 1, "tie_word_embeddings": True,
    "use_mem_rope": False, "rope_theta": 10_000.0,
}  # fmt: skip
MAMBA = ("mamba", "linear_attention")


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
    notes = (sharing, "the shared blocks' FFN has GELU; here it is SiLU")
    return Imported(
        Architecture(width, fields.count("vocab_size"), tuple(blocks)),
        fields.count("max_position_embeddings"),
        notes if shared else (),
    )
