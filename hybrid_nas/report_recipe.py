"""The report's account of the recipe: what matters most, each rule, interactions, depth, and the published claims."""

from __future__ import annotations

import html

from hybrid_nas.importance import importances
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.page import Figures, plot, prose
from hybrid_nas.plot_recipe import effects_figure, interaction_figure, positions_figure
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import SOURCE
from hybrid_nas.trial import Trial
from hybrid_nas.units import readable


def rules(recipe: Recipe, trials: list[Trial], figures: Figures) -> str:
    if not recipe.rules:
        return "<p>No choice has two options among the complete trials: there is nothing to compare.</p>"
    parts = [_overview(recipe, trials)]
    for rule in recipe.rules:
        verdict = "decided" if rule.decided else "undecided"
        parts.append(f'<h3>{html.escape(rule.choice)}<small class="{verdict}">{verdict}</small></h3>')
        parts += [f"<p>{html.escape(e.quantity.capitalize())}: {prose(e.statement)}</p>" for e in rule.evidence]
        parts += [f'<p class="warn">{prose(contradiction)}</p>' for contradiction in rule.contradictions]
    for i, quantity in enumerate(recipe.quantities):
        if not any(
            o.effect is not None for r in recipe.rules for e in r.evidence if e.quantity == quantity for o in e.options
        ):
            parts.append(f"<p>No option's effect on {html.escape(quantity)} can be told from these trials.</p>")
            continue
        caption = (
            f"Effect of each option on {html.escape(quantity)} against the mean of the choice's other options, with "
            "95% intervals. Hollow: undecided, so its place says nothing."
        )
        parts.append(plot(f"effects-{i}", effects_figure(recipe, quantity), caption, figures))
    return "".join([*parts, _depends(recipe, figures), _depths(recipe, figures)])


def _overview(recipe: Recipe, trials: list[Trial]) -> str:
    shares = {quantity: importances(trials, quantity) for quantity in recipe.quantities}
    head = "".join(
        f'<th class="n">{html.escape(q)}: largest shown difference</th><th class="n">{html.escape(q)}: importance</th>'
        for q in recipe.quantities
    )
    rows = []
    for rule in recipe.rules:
        cells = []
        for quantity in recipe.quantities:
            evidence = next((e for e in rule.evidence if e.quantity == quantity), None)
            worth = readable(evidence.worth, evidence.unit) if evidence and evidence.decided else "undecided"
            share = shares[quantity].get(rule.choice)
            bar = "" if share is None else f'<span class="bar" style="--share:{share:.3f}"></span>{share:.0%}'
            cells.append(f'<td class="n">{worth}</td><td class="n">{bar}</td>')
        rows.append(f"<tr><td>{html.escape(rule.choice)}</td>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr><th>choice</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div><p class='note'>Importance is Optuna's PED-ANOVA: the share of what sets good designs apart, "
        "without a sign or an interval. Where it is large and the difference undecided, more trials are worth most.</p>"
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
        pairs = f"{rest} pair{'s' if rest > 1 else ''} of choices"
        parts.append(f"<p>No departure from additivity shows in {pairs} that could be tested.</p>")
    return "".join(parts)


def _depths(recipe: Recipe, figures: Figures) -> str:
    parts: list[str] = []
    for i, one in enumerate(recipe.positions):
        if all(part.effect is None for part in one.parts):
            continue
        better = "above" if QUANTITIES[one.quantity].direction == "maximize" else "below"
        caption = (
            f"{html.escape(one.quantity.capitalize())} of hybrids with their {one.kind} layers in each part of the "
            f"depth, against standing equally in all of them: {better} the line is better. 95% intervals; {one.n} "
            "trained models, their number of such layers and their other choices adjusted for."
        )
        parts.append(f"<h3>Where {one.kind} layers stand</h3>" * (not parts or one.quantity == "loss"))
        parts.append(plot(f"positions-{i}", positions_figure(one), caption, figures))
    return "".join(parts)


def agreement(recipe: Recipe) -> str:
    """Claims that this study can ask as a table; the others behind a fold."""
    asked = [finding for finding in recipe.agreement if finding.tested]
    rest = [finding for finding in recipe.agreement if not finding.tested]
    parts = [f"<p>Claims of {SOURCE}, fixed before the study. Published figures are nats per token at 1B.</p>"]
    if asked:
        rows = "".join(
            f"<tr><td>{f.id}</td><td>{html.escape(f.claim)}<br><span class='note'>published: {html.escape(f.printed)}"
            f"</span></td><td><span class='verdict {f.verdict}'>{f.verdict}</span></td><td>{prose(f.why)}</td></tr>"
            for f in asked
        )
        parts.append(
            '<div class="scroll"><table class="wide"><thead><tr><th></th><th>claim</th><th>verdict</th>'
            f"<th>evidence</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    if rest:
        items = "".join(
            f"<li>{f.id}, {html.escape(f.claim)} <span class='note'>{prose(f.why)}</span></li>" for f in rest
        )
        parts.append(
            f"<details><summary>Undecided, since this study does not ask them: {len(rest)} claims</summary>"
            f"<ul>{items}</ul></details>"
        )
    return "".join(parts)
