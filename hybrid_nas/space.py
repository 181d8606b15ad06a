"""A SearchSpace: a set of designs. It knows no searcher: `build(choose)` asks one question at a time.

`choose(name, options)` gets primitive options (text and whole numbers) and returns one of them. A question is asked
only where it applies (no placement in a pure stack, no d_state without Mamba) and only if it has two answers or more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from hybrid_nas.design import Design, Placement, Ratio

Option = str | int
Choose = Callable[[str, tuple[Option, ...]], Option]
POSITIONS = "positions"


@dataclass(frozen=True)
class Question:
    """One choice: when it applies, given the answers so far, and whether later questions depend on its answer."""

    name: str
    applies: Callable[[Mapping[str, Option]], bool]
    gates: bool = False


def _has_attention(answers: Mapping[str, Option]) -> bool:
    return answers["ratio"] == POSITIONS or Ratio.parse(str(answers["ratio"])).attention > 0


def _has_mamba(answers: Mapping[str, Option]) -> bool:
    return answers["ratio"] == POSITIONS or Ratio.parse(str(answers["ratio"])).mamba > 0


QUESTIONS = (
    Question("ratio", lambda answers: True, gates=True),
    Question(
        "placement",
        lambda answers: answers["ratio"] != POSITIONS and _has_attention(answers) and _has_mamba(answers),
    ),
    Question(POSITIONS, lambda answers: answers["ratio"] == POSITIONS),
    Question("d_state", _has_mamba),
    Question("head_dim", _has_mamba),
    Question("kv_heads", _has_attention),
    Question("position", _has_attention),
    Question("window", _has_attention, gates=True),
    Question("sinks", lambda answers: "window" in answers and answers["window"] != "none"),
)
DEFAULTS: dict[str, tuple[Option, ...]] = {"placement": ("spread",), "position": ("rope",), "window": ("none",)}


@dataclass(frozen=True)
class SearchSpace:
    """A set of inter-layer designs: for each question its options, in the file's order.

    `options["ratio"]` may hold "positions", which stands for the explicit placements in `options["positions"]`
    (text such as "0.3, 0.6"). A question without options leaves the matter to the scale.
    """

    name: str
    options: Mapping[str, tuple[Option, ...]]
    family: Literal["inter"] = "inter"

    def build(self, choose: Choose) -> Design:
        """One design, by asking `choose` for every open question in turn."""
        answers: dict[str, Option] = {}
        for question in QUESTIONS:
            options = self.options.get(question.name) or DEFAULTS.get(question.name, ())
            if options and question.applies(answers):
                answers[question.name] = choose(question.name, options) if len(options) > 1 else options[0]
        return design_of(answers)

    def answers(self, design: Design) -> dict[str, Option]:
        """What `choose` must say to get `design`. ValueError if this space does not hold it."""
        wanted = answers_of(design)

        def choose(name: str, options: tuple[Option, ...]) -> Option:
            if name not in wanted or wanted[name] not in options:
                raise ValueError(
                    f"{self.name} does not hold {design}: {name} {wanted.get(name)} is not among {options}"
                )
            return wanted[name]

        asked: dict[str, Option] = {}

        def record(name: str, options: tuple[Option, ...]) -> Option:
            asked[name] = choose(name, options)
            return asked[name]

        if self.build(record) != design:
            raise ValueError(f"{self.name} does not hold {design}")
        return asked

    def allows(self, design: Design) -> bool:
        """Whether this space holds `design`."""
        try:
            self.answers(design)
        except ValueError:
            return False
        return True

    def size(self) -> int:
        """How many designs the space holds, as spelled (some may be one model at a scale)."""

        def count(i: int, answers: dict[str, Option]) -> int:
            if i == len(QUESTIONS):
                return 1
            question = QUESTIONS[i]
            options = self.options.get(question.name) or DEFAULTS.get(question.name, ())
            if not options or not question.applies(answers):
                return count(i + 1, answers)
            if not question.gates:
                return len(options) * count(i + 1, answers)
            return sum(count(i + 1, {**answers, question.name: option}) for option in options)

        return count(0, {})

    def enumerate(self) -> Iterator[Design]:
        """Every design once, in the file's order."""
        script: list[int] = []
        while True:
            widths: list[int] = []

            def choose(
                name: str, options: tuple[Option, ...], widths: list[int] = widths, script: list[int] = script
            ) -> Option:
                at = len(widths)
                widths.append(len(options))
                return options[script[at] if at < len(script) else 0]

            yield self.build(choose)
            script += [0] * (len(widths) - len(script))
            del script[len(widths) :]
            while script and script[-1] + 1 == widths[len(script) - 1]:
                script.pop()
            if not script:
                return
            script[-1] += 1

    def draw(self, rng: random.Random) -> Design:
        """One design by a uniform answer to each question."""
        return self.build(lambda name, options: rng.choice(options))


def design_of(answers: Mapping[str, Option]) -> Design:
    """The design that these answers spell."""
    values: dict[str, Any] = {"family": "inter"}
    if answers["ratio"] == POSITIONS:
        values["positions"] = tuple(float(p) for p in str(answers[POSITIONS]).split(","))
    else:
        values["ratio"] = Ratio.parse(str(answers["ratio"]))
    if "placement" in answers:
        placement: Placement = answers["placement"]  # type: ignore[assignment]
        values["placement"] = placement
    for name in ("d_state", "head_dim", "position"):
        if name in answers:
            values[name] = answers[name]
    if "kv_heads" in answers:
        values["kv_heads"] = Fraction(str(answers["kv_heads"]))
    for name in ("window", "sinks"):
        if name in answers and answers[name] != "none":
            values[name] = answers[name] if isinstance(answers[name], int) else Fraction(str(answers[name]))
    return Design(**values)


def answers_of(design: Design) -> dict[str, Option]:
    """Inverse of `design_of`: every answer that `design` implies."""
    answers: dict[str, Option] = {}
    if design.positions is not None:
        answers["ratio"] = POSITIONS
        answers[POSITIONS] = positions_text(design.positions)
    else:
        answers["ratio"] = str(design.ratio)
    for name in ("placement", "d_state", "head_dim", "position"):
        if (value := getattr(design, name)) is not None:
            answers[name] = value
    if design.kv_heads is not None:
        answers["kv_heads"] = str(design.kv_heads)
    if design.has_attention:
        for name in ("window", "sinks"):
            value = getattr(design, name)
            answers[name] = "none" if value is None else value if isinstance(value, int) else str(value)
        if design.window is None:
            del answers["sinks"]
    return answers


def positions_text(positions: tuple[float, ...]) -> str:
    return ", ".join(f"{float(p)!r}" for p in sorted(positions))
