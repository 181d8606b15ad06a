"""The report: one HTML file that holds the whole answer and needs nothing else, not even a network."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from hybrid_nas.attainment import attainment
from hybrid_nas.candidate import Candidate
from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.page import Figures, document, plot, prose, strip
from hybrid_nas.plot import attainment_figure, curves_figure, front_figure, numbers_of
from hybrid_nas.recipe import Recipe, common, describe
from hybrid_nas.report_claims import agreement, further
from hybrid_nas.report_recipe import in_short, rules
from hybrid_nas.report_tables import coinciding, left_out, run_again, trial_rows, trials_table
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, counted, duration, label, listed, moment, readable
from hybrid_nas.words import letters, part_name

CLOSE_SHOWN = 8
MEMBERS_SHOWN = 8  # the others are behind a fold


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
    name = str(run_info.get("name") or "study")
    figures: Figures = {}
    sections = {
        "The front": _front(front, objectives, figures),
        "Designs on the front": _members(trials, front, recipe),
        "What quality costs": _prices(recipe),
        "Rules": rules(recipe, trials, figures),
        "Agreement with what was published": agreement(recipe),
        "What more trials would decide": further(recipe, run_info, trials),
        "What the search bought": _attained(trials, front, figures),
        "Loss curves": _curves(trials, front, figures),
        "All trials": trials_table(trials),
        "Told apart by cost alone": coinciding(run_info, front),
        "Stopped, failed, refused": left_out(run_info, trials),
        "How this was found": f"<p>{prose(front.statement)}</p><p>{prose(recipe.method)}</p>",
        "Run again": run_again(run_info, front),
    }
    shown = {title: (f"s{i}", text) for i, (title, text) in enumerate(sections.items()) if text}
    links = "".join(f'<a href="#{key}">{title}</a>' for title, (key, _) in shown.items())
    body = [
        f"<header><h1>{html.escape(name)}</h1>",
        f'<p class="answer">{prose(recipe.answer)}</p>',
        *(f"<p>{prose(text)}</p>" for text in recipe.beside),
        in_short(recipe),
        _meta(run_info, trials, front),
        f'<nav aria-label="sections">{links}</nav></header><main>',
        *(f'<section id="{key}"><h2>{title}</h2>{text}</section>' for title, (key, text) in shown.items()),
        "</main>",
    ]
    used = {letter for trial in trials for letter in trial.layout + trial.proxy.layout}
    drawn = {number for key in figures if key.startswith("front-") for number in numbers_of(figures[key])}
    rows = trial_rows(trials, front, drawn)
    return document(name, "\n".join(part for part in body if part), used, figures, rows)


def _meta(run_info: Mapping[str, Any], trials: list[Trial], front: Front) -> str:
    counts = front.counts
    seeds = sorted({len(c.seeds) for c in front.candidates})
    at = (
        f" at {seeds[0]}{f' to {seeds[-1]}' if len(seeds) > 1 else ''} seed{'' if seeds == [1] else 's'}"
        if seeds
        else ""
    )
    space = f" of a space of {run_info['size']:,}" if run_info.get("size") else ""
    told = [
        f"{counted(counts['designs'], 'design')}{space} trained to the end",
        f"{counted(counts['trainings'], 'training')}{at}",
        f"{counts['stopped']} stopped early",
        f"{counts['failed']} failed",
    ]
    spent = sum(trial.seconds for trial in trials)
    if spent:
        told.append(f"{duration(spent)} of training")
    told += [html.escape(moment(str(run_info[key]))) for key in ("device", "finished") if run_info.get(key)]
    text = f'<p class="meta">{", ".join(told)}.</p>'
    if each := run_info.get("bytes_per_token"):
        token = (
            "a byte"
            if each == 1
            else f"{each:.2f} bytes of text on average: no loss in this encoding can be compared with one in another"
        )
        text += f'<p class="meta">Losses are in nats per token; a token is {token}.</p>'
    if run_info.get("status") == "interrupted":
        text += '<p class="warn">The study was interrupted; this is the answer of the trials that had finished.</p>'
    if front.candidates and not front.measured_noise:
        text += f'<p class="warn">{prose(front.statement)}</p>'
    return text


def _front(front: Front, objectives: Sequence[Objective], figures: Figures) -> str:
    if not front.candidates:
        return ""
    costs: list[Objective | None] = [*(o for o in objectives if not o.trained)] or [None]
    qualities: list[Objective | None] = [*(o for o in objectives if o.trained)] or [None]
    caption = ["Whiskers are 95% intervals." if front.measured_noise else "No intervals: no replicates were trained."]
    for objective in objectives:
        noise = front.noise.get(objective.name)
        if noise is not None and noise.same_seed_floor is not None and noise.floor is not None:
            band = " (the band)" if len(objectives) == 2 else ""
            caption.append(
                f"Noise floor of {objective.name}, the least difference that two designs trained once each can show: "
                f"{readable(noise.same_seed_floor, objective.unit)} at the same seed{band}, "
                f"{readable(noise.floor, objective.unit)} at different ones (standard deviation "
                f"{bare(noise.sd or 0, objective.unit)}, {noise.df} degrees of freedom)."
            )
        elif noise is not None and noise.levels is not None:
            caption.append(
                f"The noise of {objective.name} depends on its level; of one training at the edge or in the middle: "
                + ", ".join(
                    "{:.2f} [{:.2f}, {:.2f}]".format(at, *noise.levels.interval(at, 1)) for at in (0.02, 0.5, 0.98)
                )
                + "."
            )
    if len(objectives) > 2:
        caption.append(f"A member is beaten in none of {counted(len(objectives), 'objective')} at once: in one picture "
                       "it may lie behind others.")  # fmt: skip
    plots = []
    for i, (quality, cost) in enumerate(product(qualities, costs)):
        picture = front_figure(front, cost, quality)
        plots.append(_zoom(f"front-{i}", picture.layout.meta, len(front.candidates)))
        plots.append(plot(f"front-{i}", picture, " ".join(caption) if not i else "", figures))
    return (
        "".join(plots)
        + "<p class='note'>Tap a point to see its trial in the table; tap a trial's number there to see its point.</p>"
    )


def _zoom(key: str, ranges: Any, designs: int) -> str:
    """Buttons between the designs near the front and all; nothing where all are near."""
    if not ranges:
        return ""
    far = f"{counted(ranges['beyond'], 'design')} far off {'is' if ranges['beyond'] == 1 else 'are'} out of the picture"
    return (
        f'<div class="toggle" role="group" aria-label="designs shown" data-for="{key}"><button type="button" '
        f'data-range="near" aria-pressed="true">near the front</button><button type="button" data-range="all" '
        f'aria-pressed="false">all {designs}</button><span class="note">{far}</span></div>'
    )


def _members(trials: list[Trial], front: Front, recipe: Recipe) -> str:
    if not front.members:
        return ""
    roles: dict[str, list[str]] = {}
    for role, candidate in recipe.named.items():
        if not (role == "knee" and front.knee_is_end):
            roles.setdefault(candidate.key, []).append("best " + label(role[5:]) if role != "knee" else role)
    named: dict[str, str] = {}
    numbers = {number for c in front.members for number in c.trials}
    for trial in trials:
        if trial.number in numbers:
            for architecture in (trial.target, trial.proxy):
                for letter, block in letters(architecture).items():
                    named.setdefault(letter, part_name(block.mixer))
    legend = "".join(
        f'<span><i data-b="{html.escape(letter)}">{html.escape(letter)}</i>{html.escape(what)}</span>'
        for letter, what in named.items()
    )
    alike = common(trial.design for trial in trials)
    shown = [_member(c, roles.get(c.key, []), front.objectives, alike) for c in _named_first(front, roles)]
    members = "".join(shown[:MEMBERS_SHOWN])
    if rest := shown[MEMBERS_SHOWN:]:
        members += f"<details><summary>{counted(len(rest), 'further member')}</summary>{''.join(rest)}</details>"
    text = f'<div class="legend">{legend}</div>{members}'
    if alike:
        text += f"<p class='note'>All designs to which it applies: {html.escape(describe(alike))}.</p>"
    close = ", ".join(
        f'<a href="#t{c.number}">{c.number}</a> (<code>{html.escape(c.layout)}</code>, {c.probability:.0%})'
        for c in front.close[:CLOSE_SHOWN]
    )
    if close:
        further = len(front.close) - CLOSE_SHOWN
        text += (
            "<p class='note'>Off the front by no more than the noise (trial, layout, share of redraws in which it is "
            f"on the front): {close}{f' and {further} more' if further > 0 else ''}.</p>"
        )
    return text


def _named_first(front: Front, roles: Mapping[str, list[str]]) -> list[Candidate]:
    """Members in the front's order; where some are folded away, those that the answer names come first."""
    members = list(front.members)
    return sorted(members, key=lambda c: c.key not in roles) if len(members) > MEMBERS_SHOWN else members


def _prices(recipe: Recipe) -> str:
    prices = [
        f"<li>The {html.escape('best ' + label(role[5:]) if role != 'knee' else role)} design "
        f"{html.escape(price.sentence)}.</li>"
        for role, price in recipe.prices.items()
    ]
    return f"<ul>{''.join(prices)}</ul>" if prices else ""


def _member(candidate: Candidate, roles: list[str], objectives: Sequence[Objective], alike: Iterable[str]) -> str:
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
        f'<div class="member"><header><b>{html.escape(describe(candidate.design, alike))}</b>{role}'
        f'<a class="note" href="#t{candidate.number}">trial {candidate.number}</a></header>'
        f'<div class="strip">{strip(candidate.layout, "target")}{strip(candidate.proxy_layout, "proxy")}</div>'
        f'<div class="note">{"; ".join(told)}</div></div>'
    )


def _attained(trials: list[Trial], front: Front, figures: Figures) -> str:
    steps = attainment(trials, front)
    if len(steps) < 2:
        return ""
    near = next(step for step in steps if step.share >= 0.95)
    scale = [label(o.name) for o in front.objectives if front.box.logarithmic(o)]
    caption = (
        f"How much of the final front was there: 95% after trial {near.number}, at "
        f"{near.tokens / max(1, steps[-1].tokens):.0%} of the tokens of the search. 100% is the area that the front "
        f"beats at the end, up to the worst values found{f' ({listed(scale)} on a log scale)' if scale else ''}. "
        "Tokens and time are summed over workers, without replicates."
    )
    toggle = (
        '<div class="toggle" role="group" aria-label="over" data-for="attainment"><button type="button" '
        'data-show="tokens" data-title="tokens trained" aria-pressed="true">tokens</button><button type="button" '
        'data-show="seconds" data-title="training time, s" aria-pressed="false">time</button></div>'
    )
    return toggle + plot("attainment", attainment_figure(steps), caption, figures)


def _curves(trials: list[Trial], front: Front, figures: Figures) -> str:
    if not any(trial.curve for trial in trials):
        return ""
    caption = (
        "Loss while training, scaled to what follows the first quarter; dots are held-out losses. Replicates and "
        "trials that share a training are left out."
    )
    return plot("curves", curves_figure(trials, front), caption, figures)
