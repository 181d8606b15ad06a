"""Pictures of a study as plotly figures: each takes the pure answer and returns a `plotly.graph_objects.Figure`.

Colours are those of `axes.LIGHT`; a page that also has a dark form replaces each by its partner in `axes.DARK`.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hybrid_nas.attainment import Step
from hybrid_nas.axes import LIGHT, amount_axis, figure_layout, spans_a_decade
from hybrid_nas.candidate import Candidate
from hybrid_nas.design import Design
from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.recipe import common, describe
from hybrid_nas.trial import Point, Trial
from hybrid_nas.units import bare, label, readable

if TYPE_CHECKING:
    import plotly.graph_objects as go

POINTS_DRAWN = 60  # of one curve
FEW = 8  # designs, below which none can be called far out
POINTS_OFF_FRONT = 1500  # of a figure of the front
CURVES_DRAWN = 400  # further ones are left out of the picture, never of the table
MANY = 24  # curves, of which each is drawn thinner so that they do not become one band
COSTS_TOLD = ("cache_bytes", "decode_flops_per_token", "params")
HOVER_LETTERS = 34  # of a line beside a point: narrow enough to stand beside it on a phone


def front_figure(front: Front, x: Objective | None = None, y: Objective | None = None) -> go.Figure:
    """Quality (by default the first trained objective) against one efficiency objective (by default the first that is
    not trained, else the cache).

    With two objectives the front is drawn as steps, and the band beyond it holds what lies within the noise floor of
    it: designs there are not told apart from the front by one training each. Where a few designs are far worse than the
    rest, the picture shows the rest; `layout.meta` holds both ranges and how many lie beyond.
    """
    y = y or next((o for o in front.objectives if o.trained), front.objectives[0])
    costs = [o for o in front.objectives if not o.trained]
    x = x or (costs[0] if costs else Objective.named("cache_bytes"))
    logarithmic = spans_a_decade([c.value(x.name) for c in front.candidates])
    members, rest = front.members, [c for c in front.candidates if not c.member]
    shown, alike = nearest(rest), common(Design.from_dict(c.design) for c in front.candidates)
    traces: list[dict[str, Any]] = []
    if {o.name for o in front.objectives} == {x.name, y.name} and members:
        traces += _steps(front, x, y)
    name = "other designs" if len(shown) == len(rest) else f"{len(shown):,} of {len(rest):,} other designs"
    traces.append(_points(shown, x, y, name, LIGHT["faint"], 6, 1, alike))
    traces.append(_points(members, x, y, "front", LIGHT["accent"], 9, 1.4, alike))
    layout = figure_layout(height=420, legend=True)
    layout["xaxis"] |= amount_axis(x, [c.value(x.name) for c in front.candidates], logarithmic)
    layout["yaxis"]["title"] = {"text": f"{label(y.name)}, {y.unit}" if y.unit != label(y.name) else y.name}
    layout["annotations"] = _labels(front, x, y, logarithmic)
    if (ranges := _ranges(front, x, y, logarithmic)) is not None:
        layout["meta"] = ranges
        for axis in ("xaxis", "yaxis"):
            layout[axis]["range"] = ranges["near"][axis]
    return figure(traces, layout)


def nearest(rest: Sequence[Candidate]) -> list[Candidate]:
    """Those off the front that are drawn: all, or those likeliest to be on it and an even sample of the others."""
    if len(rest) <= POINTS_OFF_FRONT:
        return list(rest)
    close = sorted((c for c in rest if c.probability), key=lambda c: -(c.probability or 0))[: POINTS_OFF_FRONT // 2]
    chosen = {c.key for c in close}
    others = [c for c in rest if c.key not in chosen]
    step = len(others) / (POINTS_OFF_FRONT - len(close))
    chosen |= {others[int(i * step)].key for i in range(POINTS_OFF_FRONT - len(close))}
    return [c for c in rest if c.key in chosen]


def numbers_of(drawn: go.Figure) -> set[int]:
    """Numbers of the trials that are points of a figure of the front."""
    return {number for trace in drawn.data for told in trace.customdata or () for number in told}


def _ranges(front: Front, x: Objective, y: Objective, logarithmic: bool) -> dict[str, Any] | None:
    """The ranges of all designs, and those without the designs far out: beyond the worse quartile by three times the
    range between quartiles, as Tukey drew the line, and worse than any member. None where there are none."""
    import numpy as np

    values = np.array([y.loss(c.value(y.name)) for c in front.candidates])
    if len(values) < FEW:
        return None
    drawn = [c.estimates.get(y.name) for c in front.candidates]
    ends = [(e.low, e.high) if e and e.low is not None and e.high is not None else None for e in drawn]
    told = zip(ends, values, strict=True)
    spans = np.array([(v, v) if e is None else sorted((y.loss(e[0]), y.loss(e[1]))) for e, v in told])
    low, high = np.quantile(values, [0.25, 0.75])
    fence = max(high + 3 * (high - low), max(y.loss(c.value(y.name)) for c in front.members))
    costs = np.array([c.value(x.name) for c in front.candidates])
    costs = np.log10(costs) if logarithmic else costs

    def padded(low: float, high: float) -> list[float]:
        margin = 0.06 * (high - low) or 0.1
        return [low - margin, high + margin]

    def ranges(kept: Any) -> dict[str, list[float]]:
        low, high = padded(float(spans[kept, 0].min()), float(spans[kept, 1].max()))
        return {
            "xaxis": padded(float(costs[kept].min()), float(costs[kept].max())),
            "yaxis": sorted([y.loss(low), y.loss(high)]),
        }

    near = ranges(values <= fence)
    beyond = int((values > max(map(y.loss, near["yaxis"]))).sum())
    return {"near": near, "all": ranges(values < np.inf), "beyond": beyond} if beyond else None


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
        if len(group) > MANY:
            width, opacity = width / 2, opacity / 2
        if not group:
            continue
        for held_out in (False, True):
            xs: list[int | None] = []
            ys: list[float | None] = []
            numbers: list[int | None] = []
            for trial in group:
                points = thinned([p for p in trial.curve if p.validation == held_out])
                xs += [*(p.tokens for p in points), None]
                ys += [*(round(p.loss, 4) if math.isfinite(p.loss) else None for p in points), None]
                numbers += [trial.number] * len(points) + [None]
            trace = {
                "type": "scatter",
                "mode": "markers" if held_out else "lines",
                "x": xs,
                "y": ys,
                "customdata": numbers,
                "hovertemplate": "trial %{customdata}<br>%{x:.3s} tokens: %{y:.4f}<extra></extra>",
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
    layout["yaxis"]["title"] = {"text": "loss, nats/token"}
    longest = max((t.curve[-1].tokens for t in kept), default=0)
    late = [p.loss for t in kept for p in t.curve if p.tokens >= 0.25 * longest and math.isfinite(p.loss)]
    if late:
        margin = 0.04 * (max(late) - min(late)) or 0.1
        layout["yaxis"]["range"] = [min(late) - margin, max(late) + margin]
    return figure(traces, layout)


def attainment_figure(steps: Sequence[Step]) -> go.Figure:
    """How far the front had come over tokens, and (hidden, for the reader to switch to) over training time."""
    traces = []
    for spent, shown in (("tokens", True), ("seconds", False)):
        xs = [0.0, *(float(getattr(step, spent)) for step in steps)]
        unit = "tokens" if spent == "tokens" else "s of training"
        line = {
            "type": "scatter",
            "mode": "lines",
            "x": xs,
            "y": [0.0, *(step.share for step in steps)],
            "customdata": [None, *(step.number for step in steps)],
            "hovertemplate": f"after trial %{{customdata}}, %{{x:.3s}} {unit}: %{{y:.1%}}<extra></extra>",
            "line": {"color": LIGHT["accent"], "width": 1.6, "shape": "hv"},
            "showlegend": False,
            "visible": shown,
            "meta": spent,
        }
        members = [step for step in steps if step.member]
        dots = {
            "type": "scatter",
            "mode": "markers",
            "x": [float(getattr(step, spent)) for step in members],
            "y": [step.share for step in members],
            "customdata": [step.number for step in members],
            "hovertemplate": f"trial %{{customdata}} is on the front<br>%{{x:.3s}} {unit}: %{{y:.1%}}<extra></extra>",
            "marker": {"color": LIGHT["accent"], "size": 8},
            "name": "brought a member of the front",
            "visible": shown,
            "meta": spent,
        }
        traces += [line, dots]
    layout = figure_layout(height=300, legend=True)
    layout["xaxis"] |= {"title": {"text": "tokens trained"}, "rangemode": "tozero"}
    layout["yaxis"] |= {"title": {"text": "share of the final front"}, "range": [0, 1.05], "tickformat": ".0%"}
    return figure(traces, layout)


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about `POINTS_DRAWN` of them, the first and the last among them."""
    step = max(1, math.ceil(len(points) / POINTS_DRAWN))
    kept = list(points[::step])
    return kept if not points or kept[-1] is points[-1] else [*kept, points[-1]]


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
    candidates: Sequence[Candidate],
    x: Objective,
    y: Objective,
    name: str,
    colour: str,
    size: int,
    width: float,
    alike: Iterable[str],
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [c.value(x.name) for c in candidates],
        "y": [c.value(y.name) for c in candidates],
        "error_y": intervals(candidates, y.name, colour, width),
        "marker": {"color": colour, "size": size},
        "text": [hover(c, alike) for c in candidates],
        "customdata": [list(c.trials) for c in candidates],
        "hovertemplate": "%{text}<extra></extra>",
    }


def intervals(candidates: Iterable[Candidate], name: str, colour: str, thickness: float = 1) -> dict[str, Any]:
    """Whiskers of the candidates' estimates of one quantity; none where there is no interval."""
    found = [c.estimates.get(name) for c in candidates]
    ends = [(e.low, e.mean, e.high) if e and e.low is not None and e.high is not None else (0, 0, 0) for e in found]
    told = whiskers([(float(low), float(mean), float(high)) for low, mean, high in ends], colour)
    return {**told, "thickness": thickness, "visible": any(low < high for low, _, high in ends)}


def whiskers(ends: Iterable[tuple[float, float, float]], colour: str) -> dict[str, Any]:
    """Of (low, value, high): intervals that end where a quantity does are not the same on both sides."""
    ends = list(ends)
    up, down = [high - value for _, value, high in ends], [value - low for low, value, _ in ends]
    return {"array": up, "arrayminus": down, "symmetric": False, "color": colour, "width": 0}


def hover(candidate: Candidate, alike: Iterable[str] = ()) -> str:
    """What stands beside a point, in short lines; `alike` are choices that all designs share, left out."""
    lines = [f"trial {candidate.number}", candidate.layout, describe(candidate.design, alike)]
    for name, e in candidate.estimates.items():
        unit = QUANTITIES[name].unit if name in QUANTITIES else ""
        interval = "" if e.low is None or e.high is None else f" [{bare(e.low, unit)}, {bare(e.high, unit)}]"
        lines.append(f"{name} {bare(e.mean, unit)}{interval}, n\u00a0=\u00a0{e.n}")
    lines += [f"{label(name)} {readable(candidate.value(name), QUANTITIES[name].unit)}" for name in COSTS_TOLD]
    if candidate.probability is not None:
        lines.append(f"on the front in {candidate.probability:.0%} of redraws")
    return "<br>".join(safe(part) for line in lines for part in textwrap.wrap(line, HOVER_LETTERS))


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
                "showarrow": True,
                "arrowhead": 0,
                "arrowwidth": 0.8,
                "arrowcolor": LIGHT["muted"],
                "standoff": 5,
                "ax": 0,
                "ay": 34,
                "font": {"color": LIGHT["ink"], "size": 13},
            }
        )
    return labels


def figure(traces: list[dict[str, Any]], layout: dict[str, Any]) -> go.Figure:
    import plotly.graph_objects as go

    return go.Figure({"data": traces, "layout": {**layout, "template": {}}})


def safe(text: object) -> str:
    return html.escape(str(text), quote=False)
