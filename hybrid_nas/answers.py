"""Answers to the questions of a space, and the design that they spell."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hybrid_nas.architecture import PARALLEL_AXES, halves_meet
from hybrid_nas.design import AMOUNTS, Design, Ratio
from hybrid_nas.halves import BOTH
from hybrid_nas.questions import LAYOUT, LAYOUT_WINDOW, PARALLEL_RATIO, POSITIONS, PRESETS, Answers, Family, Option

PLAIN = (
    "placement", "d_state", "head_dim", "position", "mixer", "ffn", "experts", "experts_active", "halves",
    *PARALLEL_AXES,
)  # fmt: skip


def design_of(answers: Answers) -> Design:
    """The design that these answers spell."""
    values: dict[str, Any] = {"family": answers.get("family", "inter")}
    ratio = answers.get(PARALLEL_RATIO, answers.get("ratio"))
    if values["family"] == LAYOUT:
        values = {LAYOUT: answers[LAYOUT]}
    elif ratio == POSITIONS:
        values[POSITIONS] = tuple(float(p) for p in str(answers[POSITIONS]).split(","))
    else:
        values["ratio"] = Ratio.parse(str(ratio))
    values |= PRESETS.get(str(answers.get("preset")), {})
    values |= {name: answers[name] for name in PLAIN if name in answers}
    if "kv_heads" in answers:
        values["kv_heads"] = Fraction(str(answers["kv_heads"]))
    answers = {**answers, **({"window": answers[LAYOUT_WINDOW]} if LAYOUT_WINDOW in answers else {})}
    for name in AMOUNTS:
        if name in answers and answers[name] != "none":
            values[name] = answers[name] if isinstance(answers[name], int) else Fraction(str(answers[name]))
    return Design(**values)


def answers_of(design: Design, family: Family) -> dict[str, Option]:
    """Inverse of `design_of` in a space of this family: every answer that `design` implies."""
    answers: dict[str, Option] = {"family": LAYOUT if design.layout else design.family}
    ratio = "ratio"
    if family == "intra" and not design.has_attention and design.layout is None:
        answers["family"] = "intra"
    elif family == "hybrid" and design.family == "intra":
        ratio = PARALLEL_RATIO
    if design.layout is not None:
        answers[LAYOUT] = design.layout
    elif design.positions is not None:
        answers[ratio] = POSITIONS
        answers[POSITIONS] = positions_text(design.positions)
    else:
        answers[ratio] = str(design.ratio)
    for name in PLAIN:
        if (value := getattr(design, name)) is not None:
            answers[name] = value
    if design.kv_heads is not None:
        answers["kv_heads"] = str(design.kv_heads)
    if design.has_attention:
        for name in ("window", "sinks"):
            answers[name] = _text(getattr(design, name), "none")
        if design.window is None:
            del answers["sinks"]
        elif design.layout is not None:
            answers[LAYOUT_WINDOW] = answers.pop("window")
    if design.has_parallel:
        answers |= _parallel_answers(design)
    return answers


def _parallel_answers(design: Design) -> dict[str, Option]:
    axes = {name: getattr(design, name) for name in PARALLEL_AXES}
    answers: dict[str, Option] = {}
    for preset, known in PRESETS.items():
        if known == axes:
            answers["preset"] = preset
    if design.halves is not None:
        return answers
    answers["halves"] = BOTH
    share = design.attention_share
    if share is not None:
        answers["attention_share"] = str(share)
    attention, mamba = (design.attention_width, design.mamba_width) if share is None else (share, 1 - share)
    answers["attention_width"], answers["mamba_width"] = _text(attention, ""), _text(mamba, "")
    values: int | Fraction | None = design.value_width
    if values is None:
        assert mamba is not None
        values = 2 * mamba if halves_meet(axes["fusion"], axes["value"], axes["output"]) else Fraction(1)
    answers["value_width"] = _text(values, "")
    return answers


def _text(amount: int | Fraction | None, nothing: str) -> Option:
    return nothing if amount is None else amount if isinstance(amount, int) else str(amount)


def positions_text(positions: tuple[float, ...]) -> str:
    return ", ".join(f"{float(p)!r}" for p in sorted(positions))
