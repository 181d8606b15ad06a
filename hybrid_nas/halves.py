"""What a parallel layer's choices come to: defaults, one spelling of its split, and what cannot stand together."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

from hybrid_nas.architecture import PARALLEL_AXES, check_axes, halves_meet
from hybrid_nas.parts import Amount

PARALLEL_DEFAULTS = {
    "norm": "group",
    "scale": "none",
    "fusion": "difference",
    "value": "separate",
    "output": "separate",
}
PAPER_WIDTH = Fraction(9, 16)
"""Of queries, and of Mamba-2 before expansion: 1152 of 2048 and 896 of 1536 [arXiv:2510.04800, Table 20, 1:1]."""
BOTH = "attention-mamba"
HALVES = (BOTH, "attention", "mamba")
WIDTHS = ("attention_share", "attention_width", "mamba_width", "value_width")
CHOICES = (*PARALLEL_AXES, "halves", *WIDTHS)


def settle(choices: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """CHOICES of a design as it keeps them; and A or M where one half alone is left, which makes a whole layer of it.
    ValueError for what cannot stand together."""
    found = SimpleNamespace(**choices)
    for name, default in PARALLEL_DEFAULTS.items():
        if getattr(found, name) is None:
            joint = name == "output" and found.fusion == "concat"
            setattr(found, name, "joint" if joint else default)
    check_axes(found)
    if found.halves is not None and found.halves not in HALVES:
        raise ValueError(f"design: halves is one of {', '.join(HALVES)}, found {found.halves!r}")
    if found.halves == BOTH:
        found.halves = None
    if found.halves is not None:
        _check_equal_halves(found)
        return vars(found), None
    widths = _widths(found)
    if found.value == "joint" and 0 in widths:
        raise ValueError(
            "design: value joint needs both halves, since Mamba-2 reads the attention's values; found a split of 0"
        )
    if 0 in widths:
        return vars(found), _alone(widths)
    if widths[0] + widths[1] == 1 and all(isinstance(width, Fraction) for width in widths):
        found.attention_share, found.attention_width, found.mamba_width = Fraction(widths[0]), None, None
    else:
        found.attention_share, found.attention_width, found.mamba_width = None, *widths
    if halves_meet(found.fusion, found.value, found.output):
        _check_values(found, 2 * widths[1], widths[1])
        found.value_width = None
    elif found.value_width == 1:
        found.value_width = None
    return vars(found), None


def _check_equal_halves(found: SimpleNamespace) -> None:
    if found.value == "joint" and found.halves == "mamba":
        raise ValueError("design: value joint shares an attention's values; two halves of Mamba have none")
    for name in WIDTHS:
        if getattr(found, name) is not None:
            raise ValueError(f"design: {name} means nothing with halves {found.halves}, which are equal")


def _widths(found: SimpleNamespace) -> tuple[Amount, Amount]:
    """Of queries, and of Mamba-2 before expansion."""
    share: Fraction | None = found.attention_share
    attention: Amount | None = found.attention_width
    mamba: Amount | None = found.mamba_width
    if share is not None:
        if attention is not None or mamba is not None:
            raise ValueError("design: give attention_share, or attention_width and mamba_width, not both")
        if not 0 <= share <= 1:
            raise ValueError(f"design: attention_share lies between 0 and 1, found {share}")
        return share, 1 - share
    if attention is None and mamba is None:
        return PAPER_WIDTH, PAPER_WIDTH
    if attention is None or mamba is None:
        raise ValueError("design: attention_width and mamba_width stand together: one alone leaves the other open")
    return attention, mamba


def _check_values(found: SimpleNamespace, expanded: Amount, inner: Amount) -> None:
    """Halves that meet channel by channel leave the values no width of their own."""
    if found.value_width not in (None, expanded):
        what = "value joint" if found.value == "joint" else f"fusion {found.fusion} with output joint"
        raise ValueError(
            f"design: {what} needs halves of equal width, found value_width {found.value_width} beside Mamba-2's "
            f"{expanded} (mamba_width {inner}, expanded twice); leave value_width out, or write {expanded}"
        )


def _alone(widths: tuple[Amount, Amount]) -> str:
    """The letter of a parallel hybrid with one half alone, a layer of attention or of Mamba-2."""
    if widths[0] == widths[1]:
        raise ValueError("design: attention_width and mamba_width are both 0, which leaves nothing")
    if 1 not in widths:
        kind = "attention_width" if widths[1] == 0 else "mamba_width"
        raise ValueError(
            f"design: with one half alone the other is a whole layer: {kind} must be 1, found {sum(widths)}"
        )
    return "A" if widths[1] == 0 else "M"
