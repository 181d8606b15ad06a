"""From an Architecture back to a Design: what of one model is a choice, free of scale, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

from hybrid_nas.architecture import PARALLEL_AXES, Architecture, Attention, Mamba2, ParallelHybrid, SwiGLU
from hybrid_nas.design import Design
from hybrid_nas.moe import MoE
from hybrid_nas.parts import RECURRENT
from hybrid_nas.recurrent import Mamba1

EXPAND = 2
"""Mamba-2's channels are counted before expansion, which is twofold."""


def design_of(architecture: Architecture, context: int) -> tuple[Design, tuple[str, ...]]:
    """The design whose layers and choices are those of `architecture`, and a note for each choice it cannot carry.

    Where layers of a kind differ the commonest is taken. ValueError where no design has such layers.
    """
    notes: list[str] = []
    mixers = [block.mixer for block in architecture.blocks if block.mixer is not None]
    if not mixers:
        raise ValueError("no block has a mixer, and a design is made of them")
    if len(mixers) < architecture.depth or any(b.ffn is None for b in architecture.blocks):
        notes.append("its mixers and FFNs do not stand in pairs; a design has one FFN after each mixer")
    experts = _usual("expert", [b.ffn for b in architecture.blocks if isinstance(b.ffn, MoE)], notes)
    if any(
        b.ffn is not None and not isinstance(b.ffn, SwiGLU if experts is None else MoE) for b in architecture.blocks
    ):
        notes.append(f"not all of its FFNs are the {'SwiGLU' if experts is None else 'experts'} that its design gets")
    attention = _usual("attention", [m for m in mixers if isinstance(m, Attention)], notes, ("window", "sinks"))
    hybrid = _usual("parallel hybrid", [m for m in mixers if isinstance(m, ParallelHybrid)], notes)
    recurrent = _usual("recurrent", [m for m in mixers if not isinstance(m, Attention | ParallelHybrid)], notes)
    letters = "".join(m.letter if isinstance(m, Attention | ParallelHybrid) else "M" for m in mixers)
    values: dict[str, Any] = {"layout": letters}
    if experts is not None:
        values |= {"ffn": "moe", "experts": experts.experts, "experts_active": experts.active}
    if recurrent is not None:
        if recurrent.kind not in RECURRENT:
            raise ValueError(f"no design has {recurrent.kind} layers; known: {', '.join(RECURRENT)}")
        values["mixer"] = recurrent.kind
        if isinstance(recurrent, Mamba1) and recurrent.norms:
            notes.append("the norms on dt, B and C of its Mamba-1; a design has none")
    mamba = recurrent if isinstance(recurrent, Mamba2) else None if hybrid is None else hybrid.mamba
    if mamba is not None:
        values |= {"d_state": mamba.d_state, "head_dim": mamba.head_dim}
        if mamba.groups > 1:
            notes.append(f"its {mamba.groups} groups of B and C; a design has the scale's")
    heads = attention if attention is not None else None if hybrid is None else hybrid.attention
    if heads is not None:
        values["kv_heads"] = Fraction(heads.kv_heads, heads.heads)
        values["position"] = "none" if heads.rope_theta is None else "rope"
    windowed = [m for m in mixers if isinstance(m, Attention) and m.window is not None]
    if windowed:
        usual = Counter(windowed).most_common(1)[0][0]
        values["window"] = Fraction(usual.window or 0, context)
        values["sinks"] = Fraction(usual.sinks, context) if usual.sinks else 0
    if hybrid is not None:
        values |= {axis: getattr(hybrid, axis) for axis in PARALLEL_AXES}
        width = architecture.width
        values["attention_width"] = Fraction(hybrid.attention.heads * hybrid.attention.head_dim, width)
        values["mamba_width"] = Fraction(hybrid.mamba.d_ssm, EXPAND * width)
        if not hybrid.meets:
            values["value_width"] = Fraction(hybrid.attention.values, width)
    return Design(**values), tuple(notes)


def _usual(name: str, mixers: Iterable[Any], notes: list[str], ignored: tuple[str, ...] = ()) -> Any:
    """The commonest of `mixers`, None where there is none; a note where they differ in more than `ignored` fields."""
    counts: Counter[Any] = Counter(mixers)
    if not counts:
        return None
    usual = counts.most_common(1)[0][0]
    fields = [field for field in vars(usual) if field not in ignored]
    if any(type(m) is not type(usual) or any(getattr(m, f) != getattr(usual, f) for f in fields) for m in counts):
        notes.append(f"its {name} layers differ; a design has one kind, the commonest is taken")
    return usual
