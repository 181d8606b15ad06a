"""The report's account of the recipe: each rule, what is open, what matters most, interactions and depth."""

from __future__ import annotations

import html

from hybrid_nas.evidence import Evidence
from hybrid_nas.importance import Importance, importances
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.page import Figures, plot, prose, table
from hybrid_nas.plot_recipe import effects_figure, interaction_figure, positions_figure
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import spelled
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, counted, listed, readable


def rules(recipe: Recipe, trials: list[Trial], figures: Figures) -> str:
    if not recipe.rules:
        return "<p>No choice has two options among the complete trials: there is nothing to compare.</p>"
    parts = [f"<p class='note'>{prose(spelled(recipe))}</p>"] if spelled(recipe) else []
    lead = len(parts)
    for rule in recipe.rules:
        if rule.says:
            where = "; ".join(_standing(e) for e in rule.evidence if e.says)
            parts.append(f'<h3>{html.escape(rule.choice)}<small class="decided">{html.escape(where)}</small></h3>')
            parts += [
                f"<p>{html.escape(e.quantity.capitalize())}: {prose(e.statement)}</p>" for e in rule.evidence if e.says
            ]
            parts += [f'<p class="warn">{prose(contradiction)}</p>' for contradiction in rule.contradictions]
    if len(parts) == lead:
        parts.append("<p>No choice is decided yet.</p>")
    parts += [_open(recipe), _matter(recipe, trials)]
    for i, quantity in enumerate(recipe.quantities):
        if quantity not in recipe.silent:
            better = "more" if QUANTITIES[quantity].direction == "maximize" else "less"
            caption = (
                f"Effect of each option on {html.escape(quantity)} ({better} is better) against the mean of the "
                "choice's other options, with 95% intervals. Only filled dots are claims: those compare options in "
                "pairs and correct for their number, so an interval clear of 0 can still be undecided. Crosses have "
                "fewer than three trainings and are left out of the means of the others. Where a choice depends on "
                "another, its dots are averages that no single design gets."
            )
            parts.append(plot(f"effects-{i}", effects_figure(recipe, quantity), caption, figures))
    return "".join([*parts, _depends(recipe, figures), _depths(recipe, figures)])


def in_short(recipe: Recipe) -> str:
    """What is decided and what is open, in two lines."""
    decided: list[str] = []
    open_: list[str] = []
    for rule in recipe.rules:
        found = [html.escape(_best(e)) for e in rule.evidence if e.says]
        name = f"<b>{html.escape(rule.choice)}</b>"
        (decided if found else open_).append(f"{name} ({'; '.join(found)})" if found else name)
    lines = [f"Decided: {', '.join(decided)}." if decided else "No rule is decided yet."]
    if open_:
        lines.append(f"Open: {', '.join(open_)}.")
    return "".join(f'<p class="short">{line}</p>' for line in lines) if recipe.rules else ""


def _standing(evidence: Evidence) -> str:
    if evidence.decided:
        return f"decided in {evidence.quantity}"
    return f"depends on {listed(evidence.conditional)} in {evidence.quantity}"


def _best(evidence: Evidence) -> str:
    """The largest difference that is decided: `1:0 over 0:1 with position rope, 0.923 of recall`."""
    found = []
    for p in evidence.pairs:
        if p.split is None and p.decided:
            found.append((p.difference, f"{p.better} over {p.worse}", readable(p.difference, evidence.unit)))
        elif p.split is not None and p.decided and len(p.split.parts) > 1:
            sizes = sorted(part.difference for part in p.split.parts)
            span = f"{bare(sizes[0], evidence.unit)} to {readable(sizes[-1], evidence.unit)}"
            found.append((p.least, f"{p.better} over {p.worse}, by {p.split.other}", span))
        else:
            for part in p.split.parts if p.split else ():
                ends = (p.better, p.worse) if part.difference > 0 else (p.worse, p.better)
                at = f"{' over '.join(ends)} with {p.split.other} {part.option}" if p.split else ""
                if part.clear:
                    found.append((abs(part.difference), at, readable(abs(part.difference), evidence.unit)))
    _, what, size = max(found)
    return f"{what}, {size} of {evidence.quantity}"


def _open(recipe: Recipe) -> str:
    """What is undecided, as a table: what is possible, and what it would take."""
    rows = [
        [
            f"<b>{html.escape(rule.choice)}</b>" if i == 0 else "",
            html.escape(evidence.quantity),
            _more(evidence),
            "–" if evidence.bound is None else readable(evidence.bound, evidence.unit),
            html.escape(", ".join(evidence.kept) or "–") + _thin(evidence),
        ]
        for rule in recipe.rules
        for i, evidence in enumerate(e for e in rule.evidence if not e.says and e.quantity not in recipe.silent)
    ]
    silent = "".join(f"<p>{html.escape(text)}</p>" for text in recipe.silent.values())
    if not rows:
        return silent
    head = ["choice", "in", "more trials", "may differ by up to", "not told apart"]
    note = (
        "<p class='note'>More trials: about how many would decide the clearest pair of options, if they differ by what "
        "it seems.</p>"
    )
    return f"<h3>Undecided</h3>{table(head, rows, numeric=(2, 3), wide=True)}{note}{silent}"


def _thin(evidence: Evidence) -> str:
    if not evidence.thin:
        return ""
    return f" <span class='note'>({html.escape(', '.join(evidence.thin))}: fewer than 3 trainings)</span>"


def _more(evidence: Evidence) -> str:
    more = evidence.more_trials if evidence.pairs else evidence.trials_to_model
    if more is not None:
        return f"{more:,}"
    if (rests := sorted({p.rests_on for p in evidence.pairs if p.rests_on})) and evidence.bound is None:
        return f"rests on {html.escape(listed(rests))}"
    if evidence.more_trainings is not None:
        return f"none left; {counted(evidence.more_trainings, 'training')} at more seeds"
    return "out of reach" if evidence.pairs else "cannot be told here"


def _matter(recipe: Recipe, trials: list[Trial]) -> str:
    """Optuna's importance beside what is decided: two questions, and why their answers may differ."""
    shares = {quantity: importances(trials, quantity) for quantity in recipe.quantities}
    shares = {quantity: found for quantity, found in shares.items() if found}
    if not shares:
        return ""
    rows = [
        [html.escape(rule.choice), *(_bar(found.get(rule.choice)) for found in shares.values())]
        for rule in recipe.rules
        if any(rule.choice in found for found in shares.values())
    ]
    one = next(iter(next(iter(shares.values())).values()))
    head = ["choice", *(f"sets the best apart in {html.escape(quantity)}" for quantity in shares)]
    return (
        "<h3>What the best designs have in common</h3>"
        + table(head, rows)
        + f"<p class='note'>Optuna's importance (PED-ANOVA): which choices set the best {one.best} of {one.n} "
        "trainings apart, in shares of 100%. The mark, and the figure beside it, is what 1 of 20 shuffles of values "
        "reaches: a choice that matters nothing gets as much, so a share below it says nothing. A rule asks another "
        "question, over all designs and with the other choices adjusted for, so a choice can be decided here and short "
        "there (a bad option that few designs took), or the other way round.</p>"
    )


def _bar(importance: Importance | None) -> str:
    if importance is None:
        return ""
    kind = "bar shown" if importance.shown else "bar"
    said = f" <span class='note'>(chance: up to {importance.chance:.0%})</span>"
    return (
        f'<span class="nowrap"><span class="{kind}" style="--share:{importance.share:.3f};'
        f'--chance:{importance.chance:.3f}"></span>{importance.share:.0%}{said}</span>'
    )


def _depends(recipe: Recipe, figures: Figures) -> str:
    if not recipe.interactions:
        return ""
    parts = ["<h3>Where one choice depends on another</h3>"]
    for i, interaction in enumerate(recipe.depends):
        caption = f"{prose(interaction.statement)} Means with 95% intervals, other choices balanced."
        parts.append(plot(f"interaction-{i}", interaction_figure(interaction), caption, figures))
    rest = len(recipe.interactions) - len(recipe.depends)
    if rest:
        pairs = f"{rest} {'other ' if recipe.depends else ''}pair{'s' if rest > 1 else ''} of choices"
        parts.append(f"<p>No departure from additivity shows in {pairs} that could be tested.</p>")
    return "".join(parts)


def _depths(recipe: Recipe, figures: Figures) -> str:
    parts: list[str] = []
    seen: set[str] = set()
    for i, one in enumerate(sorted(recipe.positions, key=lambda one: one.kind)):
        if not one.told:
            continue
        better = "above" if QUANTITIES[one.quantity].direction == "maximize" else "below"
        empty = [part.part for part in one.parts if part.effect is None]
        caption = (
            f"{html.escape(one.caption)} The values are {html.escape(one.quantity)}: {better} the line is better."
            + (f" No estimate: {listed(empty)}." if empty else "")
        )
        title = f"What one {one.kind} layer is worth at each depth"
        parts.append(f"<h3>{title}</h3>" if one.kind not in seen else "")
        seen.add(one.kind)
        parts.append(plot(f"positions-{i}", positions_figure(one), caption, figures))
    return "".join(parts)
