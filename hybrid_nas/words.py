"""What a block of a model is, in words and by letter, read from the descriptions themselves."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from hybrid_nas.architecture import Architecture, Block

NAMES = {
    "attention": "attention",
    "window": "sliding-window attention",
    "mamba2": "Mamba-2",
    "mamba1": "Mamba-1",
    "mamba3": "Mamba-3",
    "gated_deltanet": "gated DeltaNet",
    "parallel_hybrid": "parallel hybrid",
    "parallel_pair": "parallel pair",
    "swiglu": "SwiGLU",
    "moe": "experts",
}


def part_name(part: Any) -> str:
    """`sliding-window attention`; a kind that has no name here is called what it calls itself.

    >>> from hybrid_nas.architecture import Attention
    >>> part_name(Attention(4, 2, 16)), part_name(Attention(4, 2, 16, window=64)), part_name(None)
    ('attention', 'sliding-window attention', 'none')
    """
    if part is None:
        return "none"
    kind = "window" if getattr(part, "window", None) is not None else part.kind
    return NAMES.get(kind, kind.replace("_", " "))


def part_text(part: Any) -> str:
    """Name and dimensions.

    >>> from hybrid_nas.architecture import Attention, SwiGLU
    >>> part_text(Attention(32, 8, 64, rope_theta=None)), part_text(SwiGLU(8192))
    ('attention: heads 32, kv_heads 8, head_dim 64, NoPE', 'SwiGLU: hidden 8,192')
    """
    if part is None:
        return "none"
    told = [text for field in fields(part) if (text := _field_text(field.name, getattr(part, field.name)))]
    return f"{part_name(part)}: {', '.join(told)}"


def letters(architecture: Architecture) -> dict[str, Block]:
    """Letter -> the first block that has it, in order of appearance."""
    found: dict[str, Block] = {}
    for letter, block in zip(architecture.layout, architecture.blocks, strict=True):
        found.setdefault(letter, block)
    return found


def _field_text(name: str, value: Any) -> str:
    if name == "rope_theta":
        return "NoPE" if value is None else f"RoPE {value:,.0f}"
    if value is None or value is False or (name == "sinks" and not value):
        return ""
    if is_dataclass(value):
        return f"{name} ({part_text(value)})" if hasattr(value, "kind") else f"{name} {value}"
    if value is True:
        return name
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
