"""Pictures of a study as plotly figures: each takes the pure answer and returns a `plotly.graph_objects.Figure`.

Colours are those of `axes.LIGHT`; a page that also has a dark form replaces each by its partner in `axes.DARK`.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hybrid_nas.axes import LIGHT, amount_axis, figure_layout, spans_a_decade
from hybrid_nas.candidate import Candidate
from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.recipe import Recipe, describe
from hybrid_nas.trial import Trial
from hybrid_nas.units import bare, label, readable

if TYPE_CHECKING:
    import plotly.graph_objects as go

CURVES_DRAWN = 400  # further ones are left out of the picture, never of the table
COSTS_TOLD = ("cache_bytes", "decode_flops_per_token", "train_flops_per_token", "params")


def front_figure(front: Front, x: Objective | None = None) -> go.Figure:
    """Quality against one efficiency objective (by default the first that is not trained, else the cache).

    With two objectives the front is drawn as steps, and the band beyond it holds what lies within the noise floor of
    it: designs there are not told apart from the front by one training each.
    """
    y = next((o for o in front.objectives if o.trained), front.objectives[0])
    costs = [o for o in front.objectives if not o.trained]
    x = x or (costs[0] if costs else Objective.named("cache_bytes"))
    logarithmic = spans_a_decade([c.value(x.name) for c in front.candidates])
    members, rest = front.members, [c for c in front.candidates if not c.member]
    traces: list[dict[str, Any]] = []
    if {o.name for o in front.objectives} == {x.name, y.name} and members:
        traces += _steps(front, x, y)
    traces.append(_points(rest, x, y, "other designs", LIGHT["faint"], 6, 1))
    traces.append(_points(members, x, y, "front", LIGHT["accent"], 9, 1.4))
    layout = figure_layout(height=420, legend=True)
    layout["xaxis"] |= amount_axis(x, [c.value(x.name) for c in front.candidates], logarithmic)
    layout["yaxis"]["title"] = {"text": f"{label(y.name)}, {y.unit}" if y.unit != label(y.name) else y.name}
    layout["annotations"] = _labels(front, x, y, logarithmic)
    return _figure(traces, layout)


def curves_figure(trials: Iterable[Trial], front: Front) -> go.Figure:
    """Training loss over tokens: members of the front, other designs, those stopped; dots are held-out losses."""
    on_front = {number: c for c in front.members for number in c.trials}
    groups: dict[str, list[Trial]] = {"other designs": [], "stopped early": [], "front": []}
    drawn = [t for t in trials if t.curve and t.shared_with is None and t.replicate_of is None and t.state != "failed"]
    kept = [t for t in drawn if t.number in on_front] + [t for t in drawn if t.number not in on_front]
    for trial in kept[:CURVES_DRAWN]:
        name = "front" if trial.number in on_front else "stopped early" if trial.state == "stopped" else "other designs"
        groups[name].append(trial)
    looks = {
        "other designs": (LIGHT["faint"], 0.8, 0.8),
        "stopped early": (LIGHT["against"], 0.9, 0.7),
        "front": (LIGHT["accent"], 1.3, 0.9),
    }
    traces = []
    for name, group in groups.items():
        colour, width, opacity = looks[name]
        if not group:
            continue
        for held_out in (False, True):
            xs, ys, texts = [], [], []
            for trial in group:
                points = [p for p in trial.curve if p.validation == held_out]
                xs += [*(p.tokens for p in points), None]
                ys += [*(p.loss for p in points), None]
                texts += [f"trial {trial.number}, {_safe(trial.layout)}"] * len(points) + [""]
            trace = {
                "type": "scatter",
                "mode": "markers" if held_out else "lines",
                "x": xs,
                "y": ys,
                "text": texts,
                "hovertemplate": "%{text}<br>%{x:.3s} tokens: %{y:.4f}<extra></extra>",
                "name": name,
                "legendgroup": name,
                "showlegend": not held_out,
                "opacity": opacity,
                "line": {"color": colour, "width": width},
                "marker": {"color": colour, "size": 5},
            }
            traces.append(trace)
    layout = figure_layout(height=360, legend=True)
    layout["xaxis"]["title"] = {"text": "tokens"}
    layout["yaxis"]["title"] = {"text": "loss, nats/byte"}
    longest = max((t.curve[-1].tokens for t in kept), default=0)
    late = [p.loss for t in kept for p in t.curve if p.tokens >= 0.25 * longest and math.isfinite(p.loss)]
    if late:
        margin = 0.04 * (max(late) - min(late)) or 0.1
        layout["yaxis"]["range"] = [min(late) - margin, max(late) + margin]
    return _figure(traces, layout)


def effects_figure(recipe: Recipe, quantity: str) -> go.Figure:
    """Each option against the mean of its choice's other options, with 95% intervals; rules most worth first.

    Filled in one colour: none is shown to beat it where the choice is decided. Filled in the other: beaten. Hollow:
    undecided, its place says nothing.
    """
    rows: list[tuple[str, Any, str]] = []  # label, effect, look
    for rule in recipe.rules:
        evidence = next((e for e in rule.evidence if e.quantity == quantity), None)
        if evidence is None:
            continue
        rows.append((f"<b>{_safe(rule.choice)}</b>", None, ""))
        for option in evidence.options:
            beaten, kept = option.option in evidence.beaten, option.option in evidence.kept
            look = "beaten" if beaten else "ahead" if evidence.decided and kept else "undecided"
            rows.append((f"{_safe(option.option)}", option, look))
    looks = {
        "ahead": (LIGHT["accent"], "circle", "not beaten by any option"),
        "beaten": (LIGHT["against"], "circle", "beaten by some option"),
        "undecided": (LIGHT["muted"], "circle-open", "undecided"),
    }
    unit = QUANTITIES[quantity].unit if quantity in QUANTITIES else ""
    traces = []
    for look, (colour, symbol, name) in looks.items():
        shown = [(len(rows) - i, o) for i, (_, o, its) in enumerate(rows) if its == look and o.effect is not None]
        if shown:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [o.effect for _, o in shown],
                    "y": [y for y, _ in shown],
                    "error_x": {"array": [o.high - o.effect for _, o in shown], "color": colour, "width": 0},
                    "marker": {"color": colour, "symbol": symbol, "size": 8},
                    "text": [
                        f"{_safe(o.option)}: {bare(o.effect, unit, True)} "
                        f"[{bare(o.low, unit, True)}, {bare(o.high, unit, True)}]<br>n = {o.n}, by {o.method}"
                        for _, o in shown
                    ],
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )
    layout = figure_layout(height=110 + 24 * len(rows), legend=True)
    better = "right" if quantity in QUANTITIES and QUANTITIES[quantity].direction == "maximize" else "left"
    layout["xaxis"] |= {
        "title": {"text": f"{quantity}{f', {unit}' if unit != 'accuracy' else ''} (better: {better})"},
        "zeroline": True,
        "zerolinecolor": LIGHT["faint"],
        "zerolinewidth": 1,
    }
    layout["yaxis"] |= {
        "tickvals": list(range(len(rows), 0, -1)),
        "ticktext": [name for name, _, _ in rows],
        "range": [0.2, len(rows) + 0.8],
        "showgrid": False,
        "automargin": True,
    }
    return _figure(traces, layout)


def _steps(front: Front, x: Objective, y: Objective) -> list[dict[str, Any]]:
    """The front as steps from the cheapest member on, and the band of the noise floor beyond it."""
    members = sorted(front.members, key=lambda c: (x.loss(c.value(x.name)), y.loss(c.value(y.name))))
    xs, ys = [c.value(x.name) for c in members], [c.value(y.name) for c in members]
    ends = [c.value(x.name) for c in front.candidates]
    xs.append(max(ends) if x.direction == "minimize" else min(ends))
    ys.append(ys[-1])
    line = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False, "x": xs, "y": ys}
    traces = [line | {"line": {"color": LIGHT["accent"], "width": 1.2, "shape": "hv"}}]
    floor = front.noise[y.name].same_seed_floor if y.trained and y.name in front.noise else None
    if floor:
        worse = floor if y.direction == "minimize" else -floor
        edge = {"color": "rgba(0,0,0,0)", "width": 0, "shape": "hv"}
        traces.append(
            line
            | {
                "y": [value + worse for value in ys],
                "line": edge,
                "fill": "tonexty",
                "fillcolor": LIGHT["band"],
                "name": f"within the noise floor, {readable(floor, y.unit)}",
                "showlegend": True,
            }
        )
    return traces


def _points(
    candidates: Sequence[Candidate], x: Objective, y: Objective, name: str, colour: str, size: int, width: float
) -> dict[str, Any]:
    widths = [
        e.high - e.mean if (e := c.estimates.get(y.name)) is not None and e.high is not None else 0.0
        for c in candidates
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [c.value(x.name) for c in candidates],
        "y": [c.value(y.name) for c in candidates],
        "error_y": {"array": widths, "color": colour, "thickness": width, "width": 0, "visible": any(widths)},
        "marker": {"color": colour, "size": size},
        "text": [_hover(c) for c in candidates],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _hover(candidate: Candidate) -> str:
    lines = [f"<b>{_safe(candidate.layout)}</b>  trial {candidate.number}", _safe(describe(candidate.design))]
    for name, e in candidate.estimates.items():
        unit = QUANTITIES[name].unit if name in QUANTITIES else ""
        interval = "" if e.low is None or e.high is None else f" [{bare(e.low, unit)}, {bare(e.high, unit)}]"
        lines.append(f"{name} {readable(e.mean, unit)}{interval}, n = {e.n}")
    lines += [f"{label(name)} {readable(candidate.value(name), QUANTITIES[name].unit)}" for name in COSTS_TOLD]
    if candidate.probability is not None:
        lines.append(f"on the front in {candidate.probability:.0%} of redraws")
    return "<br>".join(lines)


def _labels(front: Front, x: Objective, y: Objective, logarithmic: bool) -> list[dict[str, Any]]:
    if front.knee is None:
        return []
    names: dict[str, list[str]] = {}
    for name, key in {"knee": front.knee, **{f"best {label(o)}": key for o, key in front.ends.items()}}.items():
        if not (name == "knee" and front.knee_is_end):
            names.setdefault(key, []).append(name)
    labels = []
    for key, told in names.items():
        candidate = front.candidate(key)
        at = candidate.value(x.name)
        labels.append(
            {
                "x": math.log10(at) if logarithmic else at,
                "y": candidate.value(y.name),
                "text": ", ".join(told),
                "showarrow": False,
                "yshift": -16,
                "xshift": -8,
                "xanchor": "right",
                "font": {"color": LIGHT["ink"], "size": 13},
            }
        )
    return labels


def _figure(traces: list[dict[str, Any]], layout: dict[str, Any]) -> go.Figure:
    import plotly.graph_objects as go

    return go.Figure({"data": traces, "layout": {**layout, "template": {}}})


def _safe(text: object) -> str:
    return html.escape(str(text), quote=False)
