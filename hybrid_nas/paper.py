"""The layer counts that the paper prints, to stand beside those that a parameter budget chooses [arXiv:2510.04800]."""

from __future__ import annotations

from hybrid_nas.architecture import PARALLEL_AXES
from hybrid_nas.cost import params_nonembedding
from hybrid_nas.design import Design
from hybrid_nas.fit import stack
from hybrid_nas.halves import PAPER_WIDTH
from hybrid_nas.scale import Scale

LAYERS = {
    "paper-100m": {"1:0": 8, "0:1": 6, "1:5": 6},
    "paper-350m": {"1:0": 14, "1:1": 12, "1:3": 11, "1:5": 11, "1:12": 11, "0:1": 11},
    "paper-1b": {"1:0": 16, "1:1": 14, "1:3": 13, "1:5": 13, "1:12": 13, "0:1": 13},
    "paper-3b": {"1:0": 28, "0:1": 21, "1:5": 22},
}
"""attention : Mamba -> layers (Tables 8, 9, 10, 15)."""
PARALLEL_LAYERS = {
    "paper-100m": {"1:5": 6},
    "paper-350m": {"1:0": 11, "1:1": 11, "1:3": 11, "1:5": 11, "1:12": 11},
    "paper-1b": {"1:0": 13, "1:1": 13, "1:3": 13, "1:5": 13, "1:12": 13},
    "paper-3b": {"1:5": 22},
}
"""parallel : Mamba -> layers, the parallel hybrid as the paper picks it (Tables 9, 10, 15)."""
VARIANTS = {
    # norm, scale, fusion, value, output: layers at 350M and 1B, all of them parallel (Table 18)
    ("none", "diff", "difference", "joint", "joint"): (13, 15),
    ("group", "diff", "difference", "joint", "joint"): (13, 15),
    ("none", "diff", "difference", "separate", "joint"): (12, 14),
    ("group", "diff", "difference", "separate", "joint"): (12, 14),
    ("group", "diff", "difference", "separate", "separate"): (11, 13),
    ("group", "vector", "add", "separate", "joint"): (12, 14),
    ("none", "none", "add", "separate", "joint"): (12, 14),
    ("group", "none", "add", "separate", "joint"): (12, 14),
    ("none", "vector", "add", "separate", "joint"): (12, 14),
    ("group", "vector", "add", "joint", "joint"): (13, 15),
    ("none", "none", "add", "separate", "separate"): (11, 13),
    ("group", "none", "add", "separate", "separate"): (11, 13),
    ("group", "vector", "add", "separate", "separate"): (11, 13),
    ("none", "none", "difference", "separate", "separate"): (11, 13),
    ("group", "none", "difference", "separate", "separate"): (11, 13),
    ("group", "vector", "difference", "separate", "separate"): (11, 13),
    ("group", "none", "difference", "separate", "joint"): (12, 14),
    ("none", "none", "concat", "separate", "joint"): (11, 13),
    ("group", "none", "concat", "separate", "joint"): (11, 13),
    ("group", "vector", "concat", "separate", "joint"): (11, 13),
}


PAIRS = {
    ("attention", "none", "diff", "difference", "joint", "joint"): (14, 16),
    ("mamba", "none", "diff", "difference", "separate", "separate"): (11, 13),
    ("attention", "none", "diff", "add", "joint", "joint"): (14, 16),
}
"""Two halves of one kind: layers at 350M and 1B (Table 18, Diff-T, Diff-M, T/T)."""


def budget_miss(design: Design, scale: Scale, layers: int) -> float:
    """By which share the model of `design` with so many layers, and the scale's own FFN, misses the parameter budget.

    Two counts of the paper are not those nearest to the budget: two halves of Mamba-2 at 350M (11 layers, +5.7%; ours
    10, -3.9%) and 1:5 parallel layers at 3B (22, +5.2%; ours 21, +0.4%).
    """
    mixers = design.mixers(scale)
    theirs = stack(scale, (mixers[letter] for letter in design.layout_at(layers)), design.feed_forward(scale))
    return params_nonembedding(theirs, active=True) / scale.params - 1


def printed_layers(design: Design, scale: str) -> int | None:
    """The layers that the paper prints for the model of `design` at the preset `scale`; None where it has none."""
    plain = Design(family=design.family, ratio=design.ratio) if design.ratio else None
    if plain is None or design.mixer not in (None, plain.mixer) or design.ffn != plain.ffn:
        return None
    if (design.d_state, design.head_dim, design.kv_heads, design.window) != (None,) * 4:
        return None
    if not design.has_parallel:
        return LAYERS.get(scale, {}).get(str(design.ratio))
    axes = tuple(getattr(design, name) for name in PARALLEL_AXES)
    if design.halves is not None:
        known = PAIRS.get((design.halves, *axes)) if str(design.ratio) == "1:0" else None
        return known[scale == "paper-1b"] if known and scale in ("paper-350m", "paper-1b") else None
    if (design.attention_width, design.mamba_width, design.value_width) != (PAPER_WIDTH, PAPER_WIDTH, None):
        return None
    if axes == tuple(getattr(plain, name) for name in PARALLEL_AXES):
        return PARALLEL_LAYERS.get(scale, {}).get(str(design.ratio))
    if str(design.ratio) == "1:0" and axes in VARIANTS and scale in ("paper-350m", "paper-1b"):
        return VARIANTS[axes][scale == "paper-1b"]
    return None
