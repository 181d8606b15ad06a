"""transformers' FalconH1: attention with RoPE and Mamba-2 in parallel in every layer, summed, a SwiGLU after each.

Its class has no norm on the attention's half, so a parallel hybrid must go without norms (`norm: none`), which is
`mamba_rms_norm` false here. What is linear is folded into the two output projections: a difference, learned scales,
a projection after the fusion, or one that reads both halves side by side.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, ParallelHybrid, SwiGLU, halves_meet
from hybrid_nas.export.bamba import ffn_names
from hybrid_nas.export.fields import Fields
from hybrid_nas.export.format import Files, Folded, Format, Imported, Rule, WeightMap
from hybrid_nas.export.granite import NORM_EPS, attention_fields, mamba_fields, model_fields, read_attention, read_mamba
from hybrid_nas.export.rules import first, no_experts, one_ffn_after_each, one_of, only_mixers, with_mixers

DEFAULTS = {
    "vocab_size": 128000, "tie_word_embeddings": False, "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192, "mamba_d_ssm": 1024, "mamba_n_heads": 128, "mamba_d_head": "auto",
    "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True,
    "mamba_proj_bias": False, "mamba_norm_before_gate": True, "mamba_rms_norm": False, "projectors_bias": False,
    "attention_bias": False, "mlp_bias": False, "lm_head_multiplier": 1.0, "embedding_multiplier": 1.0,
    "mlp_multipliers": [1.0, 1.0], "key_multiplier": 1.0, "attention_out_multiplier": 1.0,
    "attention_in_multiplier": 1.0, "ssm_multipliers": [1.0] * 5, "ssm_in_multiplier": 1.0, "ssm_out_multiplier": 1.0,
}  # fmt: skip
MULTIPLIERS = [name for name in DEFAULTS if "multiplier" in name]
HEADS = ("in_proj.weight", "conv1d.weight", "conv1d.bias", "A_log", "D", "dt_bias")


def write(architecture: Architecture, context: int) -> Files:
    ffn = architecture.blocks[0].ffn
    assert isinstance(ffn, SwiGLU)
    hybrid: ParallelHybrid = first(architecture, ParallelHybrid)
    halves = {
        kind: replace(architecture, blocks=(Block(half, ffn),))
        for kind, half in (("attention", hybrid.attention), ("mamba", hybrid.mamba))
    }
    config = {
        **model_fields(architecture, context, "falcon_h1", "FalconH1ForCausalLM"),
        "use_cache": True,
        **attention_fields(halves["attention"]),
        "head_dim": hybrid.attention.head_dim,
        "intermediate_size": ffn.hidden,
        "mlp_bias": False,
        **mamba_fields(halves["mamba"]),
        "mamba_d_ssm": hybrid.mamba.d_ssm,
        "mamba_rms_norm": False,
        "mamba_norm_before_gate": False,
        "projectors_bias": False,
        **{name: DEFAULTS[name] for name in MULTIPLIERS},
        "num_logits_to_keep": 1,
    }
    del config["mamba_expand"]
    return {"config.json": json.dumps(config, indent=2) + "\n"}


def read(config: Any) -> Imported:
    fields = Fields(config, DEFAULTS)
    inner = config.get("mamba_d_ssm", 1024)  # null, unlike a missing field, is mamba_expand x width
    hybrid = ParallelHybrid(
        read_attention(fields, fields.rope_theta),
        read_mamba(fields, inner),
        norm="none",
        scale="none",
        fusion="add",
        value="separate",
        output="separate",
    )
    block = Block(hybrid, SwiGLU(fields.count("intermediate_size")))
    width, vocab = fields.count("hidden_size"), fields.count("vocab_size")
    return Imported(
        Architecture(width, vocab, (block,) * fields.count("num_hidden_layers")),
        fields.count("max_position_embeddings"),
        (
            *fields.untied(vocab, width),
            *_norm(fields, hybrid.mamba.d_ssm),
            *fields.differs(
                rms_norm_eps=NORM_EPS,
                mamba_conv_bias=True,
                mamba_proj_bias=False,
                projectors_bias=False,
                attention_bias=False,
                mlp_bias=False,
                **{name: DEFAULTS[name] for name in MULTIPLIERS},
            ),
            *fields.unread("mamba_d_ssm", "mamba_expand", "mamba_norm_before_gate", "mamba_use_mlp"),
        ),
    )


def _norm(fields: Fields, d_ssm: int) -> tuple[str, ...]:
    if not fields["mamba_rms_norm"]:
        return ()
    return (f"mamba_rms_norm is true: a norm on Mamba-2's half alone, {d_ssm} parameters a layer, which is left out",)


def weights(architecture: Architecture) -> WeightMap:
    names: WeightMap = {"model.embed_tokens.weight": ("embedding",), "model.final_layernorm.weight": ("norm.weight",)}
    for i, block in enumerate(architecture.blocks):
        assert isinstance(block.mixer, ParallelHybrid)
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        names[f"{theirs}.input_layernorm.weight"] = (f"{ours}.mixer_norm.weight",)
        names |= {f"{theirs}.mamba.{name}": (f"{ours}.mixer.mamba.{name}",) for name in HEADS}
        names |= {f"{theirs}.self_attn.{n}_proj.weight": (f"{ours}.mixer.attention.{n}_proj.weight",) for n in "qkv"}
        mamba, attention = _outputs(block.mixer, f"{ours}.mixer")
        names[f"{theirs}.mamba.out_proj.weight"] = mamba
        names[f"{theirs}.self_attn.o_proj.weight"] = attention
        names |= ffn_names(ours, theirs)
    return names


def _outputs(hybrid: ParallelHybrid, ours: str) -> tuple[Folded, Folded]:
    """The output projections of both halves, with all that stands between the heads and the sum folded in."""
    d_ssm, values = hybrid.mamba.d_ssm, hybrid.attention.values
    side_by_side = hybrid.fusion == "concat"
    source = "out_proj.weight" if hybrid.output == "joint" else "o_proj.weight"
    return (
        Folded(
            f"{ours}.out_proj.weight",
            columns=(0, d_ssm),
            scale=f"{ours}.mamba_scale" if hybrid.scale == "vector" else None,
        ),
        Folded(
            f"{ours}.{source}",
            columns=(d_ssm, d_ssm + values) if side_by_side else (0, values),
            scale=f"{ours}.attention_scale" if hybrid.scale in ("vector", "diff") else None,
            negated=hybrid.fusion == "difference",
        ),
    )


def folds(architecture: Architecture) -> tuple[str, ...]:
    """What stands in the output projections, and is not read again from a configuration."""
    hybrid: ParallelHybrid = first(architecture, ParallelHybrid)
    found = []
    if hybrid.fusion == "difference":
        found.append("fusion difference is a sum here, the sign in the attention's output projection; read again, add")
    if hybrid.fusion == "concat":
        found.append("fusion concat is a sum here, half of the projection for each; read again, add")
    if hybrid.scale != "none":
        found.append(f"scale {hybrid.scale} is in the output projections; read again, none")
    if hybrid.output == "joint":
        found.append("output joint is one projection for each half here; read again, separate")
    return tuple(found)


def extra_params(architecture: Architecture) -> dict[str, int]:
    """Beyond `cost`: a second projection where there was one; less the scales that are folded away."""
    extra: dict[str, int] = {}
    for i, block in enumerate(architecture.blocks):
        hybrid = block.mixer
        assert isinstance(hybrid, ParallelHybrid)
        if hybrid.output == "joint" and hybrid.fusion != "concat":
            extra[f"model.layers.{i}.self_attn.o_proj.weight"] = hybrid.attention.values * architecture.width
        if hybrid.scale == "vector":
            extra[f"blocks.{i}.mixer.mamba_scale, attention_scale"] = -(hybrid.mamba.d_ssm + hybrid.attention.values)
        if hybrid.scale == "diff":
            extra[f"blocks.{i}.mixer.attention_scale"] = -1
    return extra


def of_halves(
    what: str | Callable[[Architecture], str],
    broken: Callable[[ParallelHybrid], bool],
    fit: Callable[[ParallelHybrid], ParallelHybrid],
    change: str,
) -> Rule:
    """A rule on every parallel hybrid."""

    def problem(architecture: Architecture) -> str | None:
        found = [b.mixer for b in architecture.blocks if isinstance(b.mixer, ParallelHybrid)]
        if not any(broken(hybrid) for hybrid in found):
            return None
        return what if isinstance(what, str) else what(architecture)

    def mend(architecture: Architecture) -> tuple[Architecture, str]:
        changed = with_mixers(architecture, lambda m: fit(m) if isinstance(m, ParallelHybrid) and broken(m) else m)
        return changed, change

    return Rule(problem, mend)


def _of_values(architecture: Architecture) -> str:
    """That values are as wide as queries, and by which key of a space they become so."""
    hybrid = next(b.mixer for b in architecture.blocks if isinstance(b.mixer, ParallelHybrid))
    attention, needed = hybrid.attention, "its values are the attention's own, as wide as its queries"
    if hybrid.value == "joint":
        return f"{needed}, found those that Mamba-2 reads too (value joint)"
    found = f"{needed}, found {attention.value_dim} and {attention.head_dim} channels a head"
    if halves_meet(hybrid.fusion, hybrid.value, hybrid.output):
        return f"{found}: the halves meet channel by channel"
    share = Fraction(attention.heads * attention.head_dim, architecture.width)
    return f"{found}; with value_width: {share} they are"


def _own_values(hybrid: ParallelHybrid) -> ParallelHybrid:
    own = replace(hybrid.attention, value_dim=None)
    if hybrid.fusion == "concat":
        return replace(hybrid, value="separate", attention=own)
    return replace(hybrid, value="separate", output="separate", attention=own)


def _attention(change: Callable[[Attention], Attention]) -> Callable[[ParallelHybrid], ParallelHybrid]:
    return lambda hybrid: replace(hybrid, attention=change(hybrid.attention))


FALCON_H1 = Format(
    name="falcon-h1",
    title="transformers FalconH1ForCausalLM",
    rules=(
        only_mixers(ParallelHybrid),
        of_halves(
            "its halves have no norm of their own (norm group)",
            lambda h: h.norm != "none",
            lambda h: replace(h, norm="none"),
            "the halves go without norms",
        ),
        of_halves(
            "its halves are summed without a gate (scale gate)",
            lambda h: h.scale == "gate",
            lambda h: replace(h, scale="none"),
            "the gate goes",
        ),
        of_halves(
            _of_values,
            lambda h: h.value == "joint" or h.attention.value_dim not in (None, h.attention.head_dim),
            _own_values,
            "values become as wide as queries, each half with a projection",
        ),
        of_halves(
            "its attention has no window",
            lambda h: h.attention.window is not None,
            _attention(lambda a: replace(a, window=None, sinks=0)),
            "windows become full attention",
        ),
        of_halves(
            "its attention always has RoPE",
            lambda h: h.attention.rope_theta is None,
            _attention(lambda a: replace(a, rope_theta=10_000.0)),
            "attention gets RoPE of base 10,000",
        ),
        one_of(ParallelHybrid),
        no_experts(),
        one_ffn_after_each(),
    ),
    write=write,
    recognise=lambda config: isinstance(config, dict) and config.get("model_type") == "falcon_h1",
    read=read,
    weights=weights,
    extra_params=extra_params,
    folds=folds,
)
