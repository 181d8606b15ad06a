"""The report: one HTML file that needs nothing else, works offline, in the dark and on a phone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from hybrid_nas.candidate import Candidate
from hybrid_nas.effects import Effects
from hybrid_nas.front import Front
from hybrid_nas.noise import trainings
from hybrid_nas.objective import Objective
from hybrid_nas.page import SCRIPT, STYLE
from hybrid_nas.plot import curves_figure, effects_figure, front_figure
from hybrid_nas.recipe import Recipe
from hybrid_nas.trial import Trial
from hybrid_nas.units import duration, readable

LETTERS = {"A": "attention", "S": "sliding-window attention", "M": "Mamba-2", "H": "parallel hybrid", "-": "FFN alone"}
NO_TRIAL = "No trial is complete, so there is nothing to draw."


def write_report(
    information: Mapping[str, Any],
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    front: Front,
    recipe: Recipe,
    path: Path,
) -> None:
    """Write the report of `trials` to `path`. `information` says how the run was made; any key may be missing.

    It may hold: name, version, command, study (the resolved YAML), sampler, seed, started, finished, seconds, device,
    versions, implementations, refused (reason -> count), target and proxy (scales), data, size, status, coincide.
    """
    path.write_text(page(information, trials, objectives, front, recipe), encoding="utf-8")


def page(
    information: Mapping[str, Any],
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    front: Front,
    recipe: Recipe,
) -> str:
    """The HTML of the report."""
    name = str(information.get("name", "study"))
    figures: list[tuple[str, go.Figure]] = []

    def figure(identifier: str, made: go.Figure) -> str:
        figures.append((identifier, made))
        return f'<div class="figure" id="{identifier}"></div>'

    members = {member.key for member in front.members}
    effects = effect_rows(trials, front)
    parts = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="lead">{escape(headline(front, information))}</p>',
        f'<p class="quiet">{escape(circumstances(information, front))}</p>',
        "<h2>The front</h2>",
        figure("front", front_figure(front)) if front.candidates else f"<p>{NO_TRIAL}</p>",
        f"<p>{escape(front.statement)}</p>" if hasattr(front, "statement") else "",
        _members_table(front, objectives),
        "<h2>Layouts</h2>",
        _legend(front),
        "".join(_strips(member) for member in front.members),
        _coincide(information, front),
        "<h2>Recipe</h2>",
        _markdown(recipe.to_markdown()),
        "<h2>What each choice does</h2>",
        figure("effects", effects_figure(effects, "nats per byte"))
        if effects
        else "<p>Too few complete trials to tell choices apart.</p>",
        "<h2>Loss curves</h2>",
        figure("curves", curves_figure(trials, members)) if any(t.curve for t in trials) else f"<p>{NO_TRIAL}</p>",
        "<h2>Every trial</h2>",
        _trials_table(trials, objectives, members),
        "<h2>Stopped, refused, failed</h2>",
        _losses(trials, information),
        "<h2>How it was run</h2>",
        _how(information),
    ]
    data = {identifier: json.loads(made.to_json()) for identifier, made in figures}
    safe = json.dumps(data).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: hybrid-nas report</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>{''.join(parts)}</main>"
        f'<script type="application/json" id="figures">{safe}</script><script>{SCRIPT}</script></body></html>'
    )


def headline(front: Front, information: Mapping[str, Any]) -> str:
    """The answer in one or two sentences: the knee, its cost, and what the ends offer instead."""
    if not front.members or front.knee is None:
        return "No trial is complete yet, so there is no answer."
    target = information.get("target") or {}
    at = f" at {target['name']}" if "name" in target else ""
    knee = front.candidate(front.knee)
    price = next(o for o in front.objectives if not o.trained)
    quality = next(o for o in front.objectives if o.trained)
    text = f"The knee is {knee.layout}{at}: {_value(knee, quality)}, {_value(knee, price)} of {_words(price.name)}."
    best = front.candidate(front.ends[quality.name])
    gain = quality.loss(knee.value(quality.name)) - quality.loss(best.value(quality.name))
    if best.key != knee.key:
        floor = front.noise[quality.name].floor
        inside = floor is None or gain <= floor
        text += (
            f" The best {quality.name} is {best.layout}, {gain:.4f} better for "
            f"{best.value(price.name) / max(knee.value(price.name), 1e-30):.1f} times the {_words(price.name)}"
            + (", a difference inside the noise of this study." if inside else ".")
        )
    return text


def circumstances(information: Mapping[str, Any], front: Front) -> str:
    counts = front.counts
    text = (
        f"{counts['trials'] - counts['replicates']} trials: {counts['complete'] - counts['replicates']} complete, "
        f"{counts['stopped']} stopped early, {counts['failed']} failed; {counts['replicates']} replicates"
    )
    if "seconds" in information:
        text += f"; {duration(float(information['seconds']))}"
    for key in ("device", "status"):
        if information.get(key):
            text += f"; {information[key]}"
    return text + "."


def effect_rows(trials: Sequence[Trial], front: Front) -> list[tuple[str, str, float, float | None, int, str]]:
    """Each option of each choice against the plain mean of the choice's options, on loss."""
    complete = [trial for trial in trials if trial.state == "complete"]
    if "loss" not in front.noise:
        return []
    effects = Effects(complete, trainings(complete, "loss"), front.noise["loss"])
    rows: list[tuple[str, str, float, float | None, int, str]] = []
    for choice, options in effects.choices.items():
        counts = effects.counts(choice)
        family = [{o: (o == option) - 1 / len(options) for o in options} for option in options]
        for option, contrast in zip(options, effects.contrasts(choice, family), strict=True):
            if contrast is not None:
                method = "pairs" if contrast.method == "pairs" else "model"
                rows.append((choice, option, contrast.difference, contrast.half_width, counts[option], method))
    return rows


def _words(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _value(candidate: Candidate, objective: Objective) -> str:
    estimate = candidate.estimates.get(objective.name)
    if estimate is None:
        return readable(candidate.value(objective.name), objective.unit)
    half = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.4f}"
    return f"{objective.name} {estimate.mean:.4f}{half}"


def _members_table(front: Front, objectives: Sequence[Objective]) -> str:
    """The front, member by member."""
    if not front.members:
        return ""
    names = {objective.name for objective in objectives}
    extra = [Objective.named(name) for name in ("recall", "train_flops_per_token") if name not in names]
    quantities = [*objectives, *extra]
    rows = []
    for member in front.members:
        cells = [str(member.number), f'<code class="layout">{escape(member.layout)}</code>']
        for quantity in quantities:
            known = quantity.name in member.estimates or not quantity.trained
            cells.append(escape(_value(member, quantity).removeprefix(f"{quantity.name} ")) if known else "")
        ends = [f"best {_words(name)}" for name, key in front.ends.items() if key == member.key]
        chance = "" if member.probability is None else f"{member.probability:.0%}"
        marks = ["knee", *ends] if member.key == front.knee else ends
        cells += [str(len(member.seeds)), chance, escape(", ".join(marks))]
        rows.append(cells)
    head = ["trial", "layout", *(_words(q.name) for q in quantities), "seeds", "on the front by", ""]
    return _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], sortable: bool = False) -> str:
    """Cells are HTML already."""
    columns = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return f'<div class="wide"><table{kind}><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>'


def _legend(front: Front) -> str:
    used = sorted({letter for member in front.members for letter in member.layout})
    return '<p class="legend">' + "".join(
        f'<span class="block {_class(letter)}">{letter}</span> {LETTERS[letter]} ' for letter in used
    ) + "</p>"  # fmt: skip


def _class(letter: str) -> str:
    return "ffn" if letter == "-" else letter.lower()


def _strips(member: Candidate) -> str:
    def strip(layout: str) -> str:
        return "".join(f'<span class="block {_class(letter)}">{letter}</span>' for letter in layout)

    return (
        f'<div class="strip"><span class="number">{member.number}</span>'
        f'<span class="blocks" title="at the target">{strip(member.layout)}</span>'
        f'<span class="blocks small" title="as trained, at the proxy">{strip(member.proxy_layout)}</span></div>'
    )


def _coincide(information: Mapping[str, Any], front: Front) -> str:
    lines = []
    if information.get("coincide"):
        lines.append(
            f"{information['coincide']} designs of this space are the same model as another at the proxy scale; they "
            "share its training and are told apart by cost alone."
        )
    for member in front.members:
        if member.coincides_with:
            others = ", ".join(map(str, member.coincides_with))
            lines.append(f"Trial {member.number} shares its training with trial {others}: they differ in cost alone.")
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _trials_table(trials: Sequence[Trial], objectives: Sequence[Objective], members: set[str]) -> str:
    prices = [objective for objective in objectives if not objective.trained]
    rows = []
    for trial in trials:
        cells = [f'<span data-value="{trial.number}">{_number(trial)}</span>']
        cells.append(f'<code class="layout">{escape(trial.layout)}</code>')
        for name in ("loss", "recall"):
            value = trial.values.get(name)
            cells.append("" if value is None else f'<span data-value="{value}">{value:.4f}</span>')
        for price in prices:
            value = float(getattr(trial.cost, price.name))
            cells.append(f'<span data-value="{value}">{escape(readable(value, price.unit))}</span>')
        design = ", ".join(f"{key} {value}" for key, value in trial.design.to_dict().items() if key != "family")
        cells += [escape(design), str(trial.seed), trial.state + (", front" if trial.key in members else "")]
        rows.append(cells)
    head = ["trial", "layout", "loss", "recall", *(_words(price.name) for price in prices), "design", "seed", "state"]
    return _table(head, rows, sortable=True)


def _number(trial: Trial) -> str:
    return str(trial.number) if trial.replicate_of is None else f"{trial.replicate_of} again"


def _losses(trials: Sequence[Trial], information: Mapping[str, Any]) -> str:
    lines = []
    stopped = [trial for trial in trials if trial.state == "stopped"]
    if stopped:
        spared = sum(trial.budget.tokens - trial.tokens for trial in stopped)
        numbers = ", ".join(str(trial.number) for trial in stopped)
        lines.append(
            f"{len(stopped)} stopped early, because enough designs of equal or better efficiency had a lower loss "
            f"there (trials {numbers}); that spared {spared:,} tokens."
        )
    refused: Mapping[str, int] = information.get("refused") or {}
    lines += [f"{count} designs refused: {reason}." for reason, count in refused.items()]
    failures = Counter(trial.failure or "no reason was recorded" for trial in trials if trial.state == "failed")
    lines += [f"{count} failed: {reason}" for reason, count in failures.most_common()]
    return "".join(f"<p>{escape(line)}</p>" for line in lines) or "<p>None.</p>"


def _how(information: Mapping[str, Any]) -> str:
    rows = []
    if information.get("command"):
        rows.append(["to run it again", f'<code class="copy">{escape(str(information["command"]))}</code>'])
    for key in ("data", "sampler", "seed", "workers", "device", "system", "started", "finished", "size"):
        if information.get(key) is not None:
            rows.append([key, escape(str(information[key]))])
    for key in ("implementations", "versions"):
        table: Mapping[str, Any] = information.get(key) or {}
        if table:
            rows.append([key, escape(", ".join(f"{name} {value}" for name, value in table.items()))])
    study = information.get("study")
    more = f"<details><summary>study.yaml</summary><pre>{escape(str(study))}</pre></details>" if study else ""
    return _table(["", ""], [[f"<b>{escape(name)}</b>", value] for name, value in rows]) + more


def _markdown(text: str) -> str:
    """The recipe's Markdown as HTML: what it is written with, and raw HTML escaped."""
    from markdown_it import MarkdownIt

    made: str = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    return f'<div class="recipe">{made}</div>'
