"""The report: one HTML file that holds the whole answer and needs nothing else, not even a network."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybrid_nas.axes import DARK, LIGHT
from hybrid_nas.candidate import Candidate
from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.plot import curves_figure, effects_figure, front_figure
from hybrid_nas.recipe import METHOD, Recipe, describe
from hybrid_nas.report_tables import coinciding, left_out, run_again, trials_table
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, duration, label, readable

if TYPE_CHECKING:
    import plotly.graph_objects as go

KINDS = {"A": "attention", "S": "sliding-window attention", "M": "Mamba-2"}
LETTERS_UP_TO = 40


def write_report(
    run_info: Mapping[str, Any],
    trials: Iterable[Trial],
    objectives: Sequence[Objective],
    front: Front,
    recipe: Recipe,
    path: Path,
) -> None:
    """Write the page to `path`, whole or not at all. Keys of `run_info` that are missing are left out of the page."""
    text = page(run_info, list(trials), objectives, front, recipe)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def page(
    run_info: Mapping[str, Any],
    trials: list[Trial],
    objectives: Sequence[Objective],
    front: Front,
    recipe: Recipe,
) -> str:
    from plotly.offline import get_plotlyjs

    name = str(run_info.get("name") or "study")
    figures: dict[str, go.Figure] = {}
    body = [
        f"<h1>{html.escape(name)}</h1>",
        f'<p class="answer">{prose(recipe.headline)}</p>',
        _meta(run_info, front),
        _front(front, objectives, figures),
        _members(front, recipe),
        _rules(recipe, figures),
        _curves(trials, front, figures),
        coinciding(run_info, front),
        left_out(run_info, trials),
        trials_table(trials, front),
        f"<h2>How this was found</h2><p>{prose(front.statement)}</p><p>{prose(METHOD)}</p>",
        run_again(run_info, front),
    ]
    sources = [
        f'<script type="application/json" data-figure="{key}">{_embedded(figure.to_json())}</script>'
        for key, figure in figures.items()
    ]
    colours = json.dumps([[LIGHT[key], DARK[key]] for key in LIGHT])
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(name)}</title>",
            f"<style>{_asset('report.css')}</style></head><body>",
            *(part for part in body if part),
            f'<script type="application/json" id="colours">{colours}</script>',
            *sources,
            f"<script>{get_plotlyjs()}</script>",
            f"<script>{_asset('report.js')}</script>",
            "</body></html>\n",
        ]
    )


def prose(text: str) -> str:
    """Escaped, with `code` in backticks set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def strip(layout: str, note: str) -> str:
    """A model drawn as a row of blocks, a letter each; without letters where there are too many to read."""
    blocks = "".join(
        f'<i class="{letter if letter in KINDS else "other"}">{html.escape(letter)}</i>' for letter in layout
    )
    thin = " thin" if len(layout) > LETTERS_UP_TO or note == "proxy" else ""
    return (
        f'<span>{html.escape(note)}</span><div class="blocks{thin}" role="img" '
        f'aria-label="{html.escape(layout)}" title="{html.escape(layout)}">{blocks}</div>'
    )


def _meta(run_info: Mapping[str, Any], front: Front) -> str:
    counts = front.counts
    space = f" of a space of {run_info['size']:,}" if run_info.get("size") else ""
    told = [
        f"{counts['designs']} designs{space} trained to the end",
        f"{counts['replicates']} replicates",
        f"{counts['stopped']} stopped early",
        f"{counts['failed']} failed",
    ]
    if run_info.get("seconds") is not None:
        told.append(duration(float(run_info["seconds"])))
    told += [html.escape(str(run_info[key])) for key in ("device", "finished") if run_info.get(key)]
    text = f'<p class="meta">{", ".join(told)}.</p>'
    if run_info.get("status") == "interrupted":
        text += '<p class="warn">The study was interrupted; this is the answer of the trials that had finished.</p>'
    if front.candidates and not front.measured_noise:
        text += f'<p class="warn">{prose(front.statement)}</p>'
    return text


def _plot(key: str, figure: go.Figure, caption: str, figures: dict[str, go.Figure]) -> str:
    figures[key] = figure
    height = figure.layout.height
    return (
        f'<figure><div class="plot" id="{key}" style="height:{height}px"></div>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _front(front: Front, objectives: Sequence[Objective], figures: dict[str, go.Figure]) -> str:
    if not front.candidates:
        return ""
    costs: list[Objective | None] = [*(o for o in objectives if not o.trained)] or [None]
    caption = ["Whiskers are 95% intervals." if front.measured_noise else "No intervals: no replicates were trained."]
    for objective in objectives:
        noise = front.noise.get(objective.name)
        if noise is not None and noise.same_seed_floor is not None and noise.floor is not None:
            caption.append(
                f"Two designs trained once each at the same seed differ in {objective.name} beyond the noise from "
                f"{readable(noise.same_seed_floor, objective.unit)} on (the band), at different seeds from "
                f"{readable(noise.floor, objective.unit)} on; standard deviation "
                f"{bare(noise.sd or 0, objective.unit)}, {noise.df} degrees of freedom."
            )
    corner = ", ".join(f"{label(o.name)} {readable(front.reference[o.name], o.unit)}" for o in objectives)
    caption.append(
        f"Hypervolume {front.hypervolume:.3f} of the box between the best values found and the reference ({corner})."
    )
    plots = [
        _plot(f"front-{i}", front_figure(front, cost), " ".join(caption) if not i else "", figures)
        for i, cost in enumerate(costs)
    ]
    return f"<h2>The front</h2>{''.join(plots)}"


def _members(front: Front, recipe: Recipe) -> str:
    if not front.members:
        return ""
    roles: dict[str, list[str]] = {}
    for role, candidate in recipe.named.items():
        if not (role == "knee" and front.knee_is_end):
            roles.setdefault(candidate.key, []).append("best " + label(role[5:]) if role != "knee" else role)
    letters = dict.fromkeys("".join(c.layout + c.proxy_layout for c in front.members))
    legend = "".join(
        f'<span><i class="{letter}">{letter}</i>{KINDS[letter]}</span>' for letter in KINDS if letter in letters
    )
    prices = [
        f"<li>The {html.escape('best ' + label(role[5:]) if role != 'knee' else role)} design "
        f"{html.escape(price.sentence)}.</li>"
        for role, price in recipe.prices.items()
    ]
    members = "".join(_member(c, roles.get(c.key, []), front.objectives) for c in front.members)
    close = ", ".join(f"{c.number} (<code>{html.escape(c.layout)}</code>, {c.probability:.0%})" for c in front.close)
    text = f'<h2>Designs on the front</h2><div class="legend">{legend}</div>{members}'
    if close:
        text += (
            "<p class='note'>Off the front by no more than the noise (trial, layout, share of redraws in which it is "
            f"on the front): {close}.</p>"
        )
    if prices:
        text += f"<h2>What quality costs</h2><ul>{''.join(prices)}</ul>"
    return text


def _member(candidate: Candidate, roles: list[str], objectives: Sequence[Objective]) -> str:
    told = []
    for name, e in candidate.estimates.items():
        unit = QUANTITIES[name].unit if name in QUANTITIES else ""
        interval = "" if e.low is None or e.high is None else f" [{bare(e.low, unit)}, {bare(e.high, unit)}]"
        told.append(f"{html.escape(name)} {readable(e.mean, unit)}{interval}, n = {e.n}")
    costs = dict.fromkeys([o.name for o in objectives if not o.trained] + ["cache_bytes", "decode_flops_per_token"])
    told += [f"{label(name)} {readable(candidate.value(name), QUANTITIES[name].unit)}" for name in costs]
    if candidate.probability is not None:
        sure = "surely on the front" if candidate.sure else "on the front within the noise"
        told.append(f"{sure} ({candidate.probability:.0%} of redraws)")
    role = f'<span class="role">{html.escape(", ".join(roles))}</span>' if roles else ""
    return (
        f'<div class="member"><header><b>{html.escape(describe(candidate.design))}</b>{role}'
        f'<span class="note">trial {candidate.number}</span></header>'
        f'<div class="strip">{strip(candidate.layout, "target")}{strip(candidate.proxy_layout, "proxy")}</div>'
        f'<div class="note">{"; ".join(told)}</div></div>'
    )


def _rules(recipe: Recipe, figures: dict[str, go.Figure]) -> str:
    if not recipe.rules:
        return "<h2>Rules</h2><p>No choice has two options among the complete trials: there is nothing to compare.</p>"
    parts = ["<h2>Rules</h2>"]
    for rule in recipe.rules:
        verdict = "decided" if rule.decided else "undecided"
        parts.append(f"<h3>{html.escape(rule.choice)}<small>{verdict}</small></h3>")
        parts += [f"<p>{html.escape(e.quantity.capitalize())}: {prose(e.statement)}</p>" for e in rule.evidence]
        parts += [f'<p class="warn">{prose(contradiction)}</p>' for contradiction in rule.contradictions]
    for i, quantity in enumerate(recipe.quantities):
        caption = (
            f"Effect of each option on {html.escape(quantity)} against the mean of the choice's other options, with "
            "95% intervals. Hollow: undecided, so its place says nothing."
        )
        parts.append(_plot(f"effects-{i}", effects_figure(recipe, quantity), caption, figures))
    return "".join(parts)


def _curves(trials: list[Trial], front: Front, figures: dict[str, go.Figure]) -> str:
    if not any(trial.curve for trial in trials):
        return ""
    caption = (
        "Loss while training, scaled to what follows the first quarter; dots are held-out losses. Replicates and "
        "trials that share a training are left out."
    )
    return f"<h2>Loss curves</h2>{_plot('curves', curves_figure(trials, front), caption, figures)}"


def _asset(name: str) -> str:
    return files("hybrid_nas").joinpath(name).read_text(encoding="utf-8")


def _embedded(text: str) -> str:
    """JSON that no markup inside it can end early."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
