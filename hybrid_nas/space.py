"""A SearchSpace: a set of designs. It knows no searcher: `build(choose)` asks one question at a time.

`choose(name, options)` gets primitive options (text and whole numbers) and returns one of them. A question is asked
only where it applies (no placement in a pure stack, no d_state without Mamba) and only if it has two answers or more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal

from hybrid_nas.architecture import PARALLEL_AXES, halves_meet
from hybrid_nas.design import AMOUNTS, BOTH, Design, Ratio
from hybrid_nas.parts import read_by

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


def _whole(answers: Answers) -> bool:
    """Whether the split leaves one half alone, so that there is nothing to fuse."""
    return any(str(answers.get(name)) in ("0", "1") for name in ("attention_share", "attention_width", "mamba_width"))


def _parallel(answers: Answers) -> bool:
    return "H" in letters_of(answers) and not _whole(answers)


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


@dataclass(frozen=True)
class SearchSpace:
    """A set of designs: for each question its options, in the file's order; or `arms`, answers spelled out.

    `options["ratio"]` may hold "positions", which stands for the explicit placements in `options["positions"]`
    (text such as "0.3, 0.6"); `options["layout"]` stand beside the ratios. A question without options leaves the
    matter to the scale. A hybrid space holds both families, and every model once. `left_out`: combinations of the
    parallel hybrid's keys that crossing lists makes and that mean nothing, why -> how many; no design comes of them.
    """

    name: str
    options: Mapping[str, tuple[Option, ...]]
    family: Family = "inter"
    arms: tuple[Answers, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict, compare=False)

    def _options(self, question: Question, answers: Answers) -> tuple[str, tuple[Option, ...]]:
        """The question as it is put, and its options: those of an intra half of a hybrid space have their own ratio."""
        name = question.name
        options = self.options.get(name) or DEFAULTS.get(name, ())
        if name == "family":
            families: tuple[Option, ...] = (self.family,)
            if self.family == "hybrid":
                parallel = any(option != "0:1" for option in self.options.get("ratio", ()))
                families = ("inter", "intra") if parallel else ("inter",)
            options = (families if "ratio" in self.options else ()) + ((LAYOUT,) if LAYOUT in self.options else ())
        if name == "ratio" and self.family == "hybrid" and answers["family"] == "intra":
            return PARALLEL_RATIO, tuple(option for option in options if option != "0:1")
        if name == "output" and answers.get("fusion") == "concat":
            options = tuple(option for option in options if option == "joint")
        if name == "window" and LAYOUT in answers:
            return LAYOUT_WINDOW, tuple(option for option in self.options.get(name, ()) if option != "none")
        return name, options

    def build(self, choose: Choose) -> Design:
        """One design, by asking `choose` for every open question in turn."""
        answers: dict[str, Option] = {}
        if self.arms:
            names: tuple[Option, ...] = tuple(range(1, len(self.arms) + 1))
            return design_of(self.arms[int(choose(ARM, names) if len(names) > 1 else 1) - 1])
        for question in QUESTIONS:
            if question.applies(answers):
                name, options = self._options(question, answers)
                if options:
                    answers[name] = choose(name, options) if len(options) > 1 else options[0]
        return design_of(answers)

    def answers(self, design: Design) -> dict[str, Option]:
        """What `choose` must say to get `design`. ValueError if this space does not hold it."""
        return {name: answer for name, (answer, _) in self.choices(design).items()}

    def choices(self, design: Design) -> dict[str, tuple[Option, tuple[Option, ...]]]:
        """Each question that leads to `design`, the answer, and its options. ValueError if this space has none."""
        reason = ""
        for wanted in self._spellings(design):
            asked: dict[str, tuple[Option, tuple[Option, ...]]] = {}

            def choose(
                name: str,
                options: tuple[Option, ...],
                wanted: Answers = wanted,
                asked: dict[str, tuple[Option, tuple[Option, ...]]] = asked,
            ) -> Option:
                if name not in wanted or wanted[name] not in options:
                    raise LookupError(f"{name} {wanted.get(name)} is not among {options}")
                asked[name] = wanted[name], options
                return wanted[name]

            try:
                if self.build(choose) == design:
                    return asked
            except LookupError as error:
                reason = f": {error}"
        raise ValueError(f"{self.name} does not hold {design}{reason}")

    def _spellings(self, design: Design) -> Iterator[Answers]:
        """Answers that may spell `design` here: its own, and where another spelling can become it, all."""
        if self.arms:
            yield from ({ARM: i} for i, arm in enumerate(self.arms, 1) if design_of(arm) == design)
            return
        own = answers_of(design, self.family)
        yield own
        for layout in self.options.get(LAYOUT, ()):
            if len(letters := letters_of({"family": LAYOUT, LAYOUT: layout})) == 1 and letters == design.letters:
                yield {**own, "family": LAYOUT, LAYOUT: layout}  # a stack of one kind is a ratio to the design
        if any(_whole({name: option}) for name, options in self.options.items() for option in options):
            yield from (asked for asked, spelled in self._everything() if spelled == design)

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
            name, options = self._options(question, answers) if question.applies(answers) else ("", ())
            if not options:
                return count(i + 1, answers)
            if not question.gates:
                return len(options) * count(i + 1, answers)
            return sum(count(i + 1, {**answers, name: option}) for option in options)

        return len(self.arms) or count(0, {})

    def asked(self) -> set[str]:
        """The questions that some design of this space answers."""
        found: set[str] = set()

        def walk(i: int, answers: dict[str, Option]) -> None:
            if i == len(QUESTIONS):
                return
            question = QUESTIONS[i]
            name, options = self._options(question, answers) if question.applies(answers) else ("", ())
            if options:
                found.add(question.name)
            for option in options if question.gates and options else ("",):
                walk(i + 1, {**answers, name: option} if question.gates and options else answers)

        walk(0, {})
        return found

    def enumerate(self) -> Iterator[Design]:
        """Every design once, in the file's order."""
        for _, design in self._everything():
            yield design

    def _everything(self) -> Iterator[tuple[dict[str, Option], Design]]:
        """Every set of answers once, with its design."""
        script: list[int] = []
        while True:
            asked: dict[str, Option] = {}
            widths: list[int] = []

            def choose(
                name: str,
                options: tuple[Option, ...],
                asked: dict[str, Option] = asked,
                widths: list[int] = widths,
                script: list[int] = script,
            ) -> Option:
                at = len(widths)
                widths.append(len(options))
                asked[name] = options[script[at] if at < len(script) else 0]
                return asked[name]

            design = self.build(choose)
            yield asked, design
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
