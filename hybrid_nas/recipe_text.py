"""The recipe as text: Markdown for people, LaTeX for a paper's appendix."""

from __future__ import annotations

from hybrid_nas.evidence import Evidence
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.outlook import affordable, continued
from hybrid_nas.pair_effects import PairEffect
from hybrid_nas.recipe import Recipe, Rule, describe, estimate_text
from hybrid_nas.simple_effects import Simple
from hybrid_nas.units import bare, label, listed, readable

NAMED_COSTS = ("cache_bytes", "decode_flops_per_token", "decode_bytes_per_token", "train_flops_per_token", "params")
SOURCE = "arXiv:2510.04800"
WANTING = "Undecided: this space could ask it, these trials cannot:"
NOT_ASKED = "Undecided, since this study cannot ask it:"
CONTINUES = (
    "Estimated from the noise and the differences found so far, if further trials are like these. The command that "
    "made the run continues it where `--trials` is larger; nothing is trained twice."
)


def markdown(recipe: Recipe, command: str = "") -> str:
    """recipe.md. `command` made the run."""
    lines = ["# Recipe", "", recipe.headline, "", recipe.statement, ""]
    if recipe.named:
        lines += ["## Designs", "", *_designs(recipe), ""]
    if recipe.prices:
        lines += ["## What quality costs", ""]
        lines += [
            f"- The {f'best {label(name[5:])}' if name.startswith('best ') else name} design {price.sentence}."
            for name, price in recipe.prices.items()
        ]
        lines += ["", "The designs are picked by their estimates, which flatters those trained at one seed.", ""]
    lines += ["## Rules", ""]
    lines += [f"{spelled(recipe)}\n"] if spelled(recipe) else []
    if not recipe.rules:
        lines += ["No choice has two options among the complete trials: there is nothing to compare.", ""]
    lines += [f"{text}\n" for text in recipe.silent.values()]
    for rule in recipe.rules:
        told = [evidence for evidence in rule.evidence if evidence.quantity not in recipe.silent]
        if not told:
            continue
        lines += [f"### {rule.choice}", ""]
        lines += [f"- {evidence.quantity}: {evidence.statement}" for evidence in told]
        lines += [f"- {contradiction}" for contradiction in rule.contradictions]
        lines += ["", *_table(rule, told), ""]
        if depends := [f"{e.quantity} over {listed(e.depends_on)}" for e in told if e.depends_on]:
            lines += [f"An average of {' and of '.join(depends)}, which no single design gets.", ""]
    lines += _depends(recipe) + _depths(recipe) + _agreement(recipe) + _outlook(recipe, command)
    return "\n".join([*lines, "## How this was found", "", recipe.method, ""])


SPELLED = {
    "family": "`family` inter is attention in layers of its own, intra in parallel with Mamba-2",
    "position": "`position` none is NoPE, rope is RoPE",
}


def spelled(recipe: Recipe) -> str:
    """The options whose names in a study file are not those of the field."""
    told = [text for name, text in SPELLED.items() if any(name in rule.choice.split(" and ") for rule in recipe.rules)]
    return f"{'; '.join(told)}." if told else ""


def _designs(recipe: Recipe) -> list[str]:
    costs = (*recipe.speeds, *NAMED_COSTS)
    head = ["", "trial", "layout", "design", *recipe.quantities, *map(label, costs)]
    rows = [
        [
            f"best {label(name[5:])}" if name.startswith("best ") else name,
            str(c.number),
            f"`{c.layout}`",
            describe(c.design, recipe.alike),
            *(estimate_text(c, quantity) for quantity in recipe.quantities),
            *(readable(c.value(name), QUANTITIES[name].unit) for name in costs),
        ]
        for name, c in recipe.named.items()
    ]
    alike = [f"All designs to which it applies: {describe(recipe.alike)}."] if recipe.alike else []
    return [*_rows(head, rows), "", *alike]


def _table(rule: Rule, told: list[Evidence]) -> list[str]:
    """Options in the space's order: the order says nothing about which is better."""
    head = [rule.choice, "stopped"]
    for evidence in told:
        better = "more" if evidence.more_is_better else "less"
        head.append(f"{evidence.quantity} against the other options ({better} is better)")
    rows = []
    for option in told[0].options:
        cells = []
        for evidence in told:
            row = next((o for o in evidence.options if o.option == option.option), None)
            if row is None or row.effect is None or row.low is None or row.high is None:
                cells.append("–" if row is None else f"– (n = {row.n})")
                continue
            low, high = bare(row.low, evidence.unit, signed=True), bare(row.high, evidence.unit, signed=True)
            cells.append(f"{bare(row.effect, evidence.unit, signed=True)} [{low}, {high}] ({row.method}, n = {row.n})")
        rows.append([option.option, str(option.stopped), *cells])
    return _rows(head, rows)


def _rows(head: list[str], rows: list[list[str]]) -> list[str]:
    table = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in table]


def _depends(recipe: Recipe) -> list[str]:
    lines = ["## Where one choice depends on another", ""]
    lines += [f"- {interaction.statement}" for interaction in recipe.depends]
    if not recipe.interactions:
        return [*lines, "The trials cannot test any pair of choices.", ""]
    rest = len(recipe.interactions) - len(recipe.depends)
    if rest:
        pairs = f"{rest} {'other ' if recipe.depends else ''}pair{'s' if rest > 1 else ''} of choices"
        lines += ["", f"No departure from additivity shows in {pairs} that could be tested."]
    return [*lines, ""]


def _depths(recipe: Recipe) -> list[str]:
    lines: list[str] = []
    for one in recipe.positions:
        unit = QUANTITIES[one.quantity].unit if one.quantity in QUANTITIES else ""
        if not one.told:
            continue
        title = f"## What one {one.kind} layer is worth at each depth: {one.quantity}"
        rows = [[part.part, str(part.n), _interval(part.effect, part.low, part.high, unit)] for part in one.parts]
        lines += [title, "", one.caption, "", *_rows(["part of the depth", "designs", one.quantity], rows), ""]
    return lines


def _agreement(recipe: Recipe) -> list[str]:
    asked = [finding for finding in recipe.agreement if finding.tested]
    lines = [f"## Agreement with what was published ({SOURCE})", ""]
    if asked:
        rows = [[f.id, f.claim, f.printed, f"**{f.verdict}**", "; ".join(filter(None, (f.why, f.then)))] for f in asked]
        lines += [*_rows(["", "claim", "published, nats per token", "verdict", "evidence"], rows), ""]
    for askable, head in ((True, WANTING), (False, NOT_ASKED)):
        rest = [f for f in recipe.agreement if not f.tested and f.askable is askable]
        if rest:
            lines += [head, ""]
            lines += [f"- {f.id}, {f.claim} {' '.join(map(_sentence, filter(None, (f.why, f.then))))}" for f in rest]
            lines.append("")
    return lines


def _outlook(recipe: Recipe, command: str) -> list[str]:
    if not recipe.outlook and not recipe.beyond:
        return []
    lines = ["## What more trials would decide", ""]
    lines += [recipe.beyond, ""] if recipe.beyond else []
    if not recipe.outlook:
        return lines
    lines += [CONTINUES, ""]
    lines += [f"- {further.sentence}" for further in recipe.outlook] + [""]
    if command and (step := affordable(recipe.outlook)) is not None:
        lines += [f"For all up to {step.trials:,} trials:", "", "```sh", continued(command, step.trials), "```", ""]
    return lines


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _interval(effect: float | None, low: float | None, high: float | None, unit: str) -> str:
    if effect is None or low is None or high is None:
        return "–"
    return f"{bare(effect, unit, True)} [{bare(low, unit, True)}, {bare(high, unit, True)}]"


SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "–": "--",
}  # fmt: skip


def latex(recipe: Recipe) -> str:
    """Two tables for a paper's appendix, with booktabs: the rules, most worth first, and the published claims."""
    asked = [finding for finding in recipe.agreement if finding.tested]
    rest = [finding.id for finding in recipe.agreement if not finding.tested]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            *_latex_table(
                ["choice", "quantity", "better / worse", "difference [95\\% interval]", "$n$, by", "decided"],
                r"p{0.12\linewidth}lp{0.21\linewidth}rrl",
                _rule_rows(recipe),
                "Rules by their worth. Differences are of the better option against the worse; intervals are for each "
                "difference alone, decided is by Holm's correction over the options of a choice at 5\\,\\%, and needs "
                "three trainings of either; a difference that goes when the designs with one option of another choice "
                "are left out is not decided, and one that varies over another choice by more than its mean is given "
                "at each of that choice's options.",
                "rules",
            ),
            "",
            *_latex_table(
                ["claim", "verdict", "difference [95\\% interval]", "$n$"],
                r"p{0.45\linewidth}lrr",
                [
                    [
                        tex(f"{f.id}: {f.claim}"),
                        f.verdict,
                        "$" + _interval(f.difference, f.low, f.high, _unit(f.quantity)).replace(" [", "\\ [") + "$",
                        str(f.n),
                    ]
                    for f in asked
                ],
                f"Agreement with the claims of {SOURCE}."
                + (f" Not put to the test by this study: {listed(rest)}." if rest else ""),
                "agreement",
            ),
            "",
        ]
    )


def tex(text: str) -> str:
    """Text that LaTeX sets as it stands.

    >>> tex("d_state 50% {a}")
    'd\\\\_state 50\\\\% \\\\{a\\\\}'
    """
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _rule_rows(recipe: Recipe) -> list[list[str]]:
    rows = []
    for rule in recipe.rules:
        for evidence in rule.evidence:
            pairs = sorted(evidence.pairs, key=lambda p: (not p.decided, -p.difference))
            told = [pair for pair in pairs if pair.decided or pair.rests_on or pair.split]
            for pair in told or pairs[:1]:
                if pair.split is not None:
                    rows += [_split_row(rule.choice, evidence, pair, part) for part in pair.split.parts]
                    continue
                numbers = [bare(number, evidence.unit) for number in (pair.difference, pair.low, pair.high)]
                rows.append(
                    [
                        tex(rule.choice),
                        tex(evidence.quantity),
                        tex(f"{pair.better} / {pair.worse}") + _caveat(pair, evidence.unit),
                        "${}\\ [{}, {}]$".format(*numbers),
                        f"{pair.n}, {pair.method}",
                        "yes" if pair.decided else "no",
                    ]
                )
    return rows


def _split_row(choice: str, evidence: Evidence, pair: PairEffect, part: Simple) -> list[str]:
    """A pair at one option of the choice that it depends on."""
    at = f", with {pair.split.other} {part.option}" if pair.split else ""
    numbers = [bare(number, evidence.unit) for number in (part.difference, part.low, part.high)]
    return [
        tex(choice),
        tex(evidence.quantity),
        tex(f"{pair.better} / {pair.worse}{at}"),
        "${}\\ [{}, {}]$".format(*numbers),
        f"{part.n}, model",
        "yes" if part.clear else "no",
    ]


def _caveat(pair: PairEffect, unit: str) -> str:
    if pair.without is None:
        return ""
    return tex(f", resting on {pair.rests_on} (without ") + f"${bare(pair.without, unit, True)}$)"


def _unit(quantity: str) -> str:
    return QUANTITIES[quantity].unit if quantity in QUANTITIES else ""


def _latex_table(head: list[str], columns: str, rows: list[list[str]], caption: str, name: str) -> list[str]:
    body = [f"{' & '.join(row)} \\\\" for row in rows] or [f"\\multicolumn{{{len(head)}}}{{l}}{{none}} \\\\"]
    return [
        r"\begin{table}", r"\centering\footnotesize\setlength{\tabcolsep}{3pt}", f"\\begin{{tabular}}{{{columns}}}",
        r"\toprule", f"{' & '.join(head)} \\\\", r"\midrule", *body, r"\bottomrule", r"\end{tabular}",
        f"\\caption{{{caption}}}", f"\\label{{tab:{name}}}", r"\end{table}",
    ]  # fmt: skip
