"""The questions that lead to a design: when each applies, given the answers so far.

A question is asked only where it applies (no placement in a pure stack, no d_state without Mamba).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from hybrid_nas.halves import BOTH
from hybrid_nas.parts import read_by
from hybrid_nas.placement import Ratio

Option = str | int
Answers = Mapping[str, Option]
Choose = Callable[[str, tuple[Option, ...]], Option]
Family = Literal["inter", "intra", "hybrid"]
POSITIONS = "positions"
LAYOUT = "layout"
ARM = "arm"
PARALLEL_RATIO = "parallel_ratio"
"""The ratio of the intra half of a hybrid space: without the pure Mamba stack, which the inter half holds."""
LAYOUT_WINDOW = "layout_window"
"""The window of S in a layout, which is never none."""
PRESETS: dict[str, dict[str, str]] = {
    "paper": {"norm": "group", "scale": "none", "fusion": "difference", "value": "separate", "output": "separate"},
    "hymba": {"norm": "group", "scale": "vector", "fusion": "add", "value": "separate", "output": "joint"},
    "falcon-h1": {"norm": "none", "scale": "none", "fusion": "concat", "value": "separate", "output": "joint"},
}
"""Known points of the parallel hybrid's axes, as [arXiv:2510.04800, Table 18] rebuilds them."""


@dataclass(frozen=True)
class Question:
    """One choice: when it applies, given the answers so far, and whether later questions depend on its answer."""

    name: str
    applies: Callable[[Answers], bool]
    gates: bool = False


def letters_of(answers: Answers) -> set[str]:
    """The kinds of layers that these answers give a stack."""
    if answers["family"] == LAYOUT:
        return set(str(answers[LAYOUT])) - {" "}
    other = "H" if answers["family"] == "intra" else "A"
    ratio = answers.get(PARALLEL_RATIO, answers.get("ratio"))
    if ratio == POSITIONS:
        return {other, "M"}
    counts = Ratio.parse(str(ratio))
    return {letter for letter, count in ((other, counts.attention), ("M", counts.mamba)) if count}


def _has(letters: str) -> Callable[[Answers], bool]:
    return lambda answers: bool(set(letters) & letters_of(answers))


def _reads(name: str) -> Callable[[Answers], bool]:
    def applies(answers: Answers) -> bool:
        letters = letters_of(answers) - (set() if _half("mamba")(answers) else {"H"})
        return name in read_by(letters, str(answers["mixer"]) if "mixer" in answers else None)

    return applies


def is_whole(answers: Answers) -> bool:
    """Whether the split leaves one half alone, so that there is nothing to fuse."""
    return any(str(answers.get(name)) in ("0", "1") for name in ("attention_share", "attention_width", "mamba_width"))


def _parallel(answers: Answers) -> bool:
    return "H" in letters_of(answers) and not is_whole(answers)


def _half(kind: str) -> Callable[[Answers], bool]:
    """Whether the parallel layers, if any, have a half of `kind` (attention, mamba)."""
    return lambda answers: "H" in letters_of(answers) and kind in str(answers.get("halves", BOTH)).split("-")


def _attends(answers: Answers) -> bool:
    return _has("AS")(answers) or _half("attention")(answers)


def _both(answers: Answers) -> bool:
    return "H" in letters_of(answers) and answers.get("halves", BOTH) == BOTH


def _mixed(answers: Answers) -> bool:
    return answers["family"] != LAYOUT and len(letters_of(answers)) == 2


def _placed_at(answers: Answers) -> bool:
    return POSITIONS in (answers.get("ratio"), answers.get(PARALLEL_RATIO))


QUESTIONS = (
    Question("family", lambda answers: True, gates=True),
    Question(LAYOUT, lambda answers: answers["family"] == LAYOUT, gates=True),
    Question("ratio", lambda answers: answers["family"] != LAYOUT, gates=True),
    Question("placement", lambda answers: _mixed(answers) and not _placed_at(answers)),
    Question(POSITIONS, _placed_at),
    Question("mixer", _has("M"), gates=True),
    Question("ffn", lambda answers: True, gates=True),
    Question("experts", lambda answers: answers.get("ffn") == "moe"),
    Question("experts_active", lambda answers: answers.get("ffn") == "moe"),
    Question("halves", _has("H"), gates=True),
    Question("d_state", _reads("d_state")),
    Question("head_dim", _reads("head_dim")),
    Question("kv_heads", _attends),
    Question("position", _attends),
    Question("window", lambda answers: _has("S")(answers) if LAYOUT in answers else _attends(answers), gates=True),
    Question("sinks", lambda answers: answers.get(LAYOUT_WINDOW, answers.get("window", "none")) != "none"),
    Question("attention_share", _both, gates=True),
    Question("attention_width", _both, gates=True),
    Question("mamba_width", _both, gates=True),
    Question("preset", _parallel),
    Question("norm", _parallel),
    Question("scale", _parallel),
    Question("fusion", _parallel, gates=True),
    Question("value", lambda answers: _parallel(answers) and _half("attention")(answers)),
    Question("output", _parallel),
    Question("value_width", lambda answers: _parallel(answers) and _both(answers)),
)
DEFAULTS: dict[str, tuple[Option, ...]] = {"placement": ("spread",), "position": ("rope",), "window": ("none",)}
