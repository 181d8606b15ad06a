"""A SearchSpace: a set of designs. It knows no searcher: `build(choose)` asks one question at a time.

`choose(name, options)` gets primitive options (text and whole numbers) and returns one of them. A question is asked
only where it applies and only if it has two answers or more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hybrid_nas.answers import answers_of, design_of
from hybrid_nas.design import Design
from hybrid_nas.questions import (
    ARM,
    DEFAULTS,
    LAYOUT,
    LAYOUT_WINDOW,
    PARALLEL_RATIO,
    QUESTIONS,
    Answers,
    Choose,
    Family,
    Option,
    Question,
    is_whole,
    letters_of,
)


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
        if any(is_whole({name: option}) for name, options in self.options.items() for option in options):
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
