"""The report's figures. Each takes plain data and returns a plotly figure; colours are left to the page's theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.trial import Trial
from hybrid_nas.units import readable

MEMBER = "#2f6fde"
OTHER = "#9aa3ad"
KNEE = "#d9822b"
BAND = "rgba(217,130,43,0.16)"
SCALED = {"bytes": (2**20, "MiB"), "bytes/token": (2**30, "GiB/token"), "FLOP/token": (1e9, "GFLOP/token")}


def scaled(value: float, unit: str) -> float:
    """`value` in the unit that axes use."""
    return value / SCALED[unit][0] if unit in SCALED else value


def axis(name: str, unit: str) -> str:
    return f"{name.replace('_', ' ')} ({SCALED[unit][1] if unit in SCALED else unit})"


def front_figure(front: Front) -> go.Figure:
    """The first trained objective against the first efficiency: every design, the front with its intervals, the knee,
    and the noise floor as a band above the best value."""
    quality = next(o for o in front.objectives if o.trained)
    price = next(o for o in front.objectives if not o.trained)
    figure = _figure(axis(f"{price.name} at the target", price.unit), axis(quality.name, quality.unit))
    groups = (
        ("other designs", [c for c in front.candidates if not c.member], OTHER, 7),
        ("front", sorted(front.members, key=lambda c: c.value(price.name)), MEMBER, 10),
    )
    for name, members, colour, size in groups:
        if not members:
            continue
        estimates = [member.estimates[quality.name] for member in members]
        colours = [KNEE if member.key == front.knee and member.member else colour for member in members]
        figure.add_scatter(
            x=[scaled(member.value(price.name), price.unit) for member in members],
            y=[estimate.mean for estimate in estimates],
            error_y={
                "type": "data",
                "array": [0.0 if e.high is None else e.high - e.mean for e in estimates],
                "thickness": 1,
                "width": 3,
                "color": colour,
            },
            mode="lines+markers" if name == "front" and len(members) > 1 else "markers",
            line={"color": MEMBER, "width": 1, "dash": "dot"},
            marker={"size": size, "color": colours},
            name=name,
            customdata=[member.number for member in members],
            hovertext=[_hover(member, front.objectives) for member in members],
            hoverinfo="text",
        )
    noise = front.noise.get(quality.name)
    if noise is not None and noise.floor is not None and front.members:
        best = front.members[0].value(quality.name) if quality is front.objectives[0] else None
        if best is not None:
            figure.add_hrect(
                y0=best,
                y1=best + noise.floor,
                fillcolor=BAND,
                line_width=0,
                annotation_text="noise floor: no order in here",
                annotation_position="top right",
                annotation_font_size=11,
            )
    figure.update_xaxes(type="log")
    return figure


def _hover(member: Any, objectives: Sequence[Objective]) -> str:
    lines = [f"<b>trial {member.number}</b>", member.layout]
    for name, estimate in member.estimates.items():
        half = "" if estimate.high is None else f" ± {estimate.high - estimate.mean:.4f}"
        lines.append(f"{name} {estimate.mean:.4f}{half} (n = {estimate.n})")
    lines += [
        f"{o.name.replace('_', ' ')} {readable(member.value(o.name), o.unit)}" for o in objectives if not o.trained
    ]
    lines += [f"{key}: {value}" for key, value in member.design.items() if key != "family"]
    return "<br>".join(lines)


def curves_figure(trials: Sequence[Trial], members: set[str]) -> go.Figure:
    """Training loss (thin) and held-out loss (marked) of every search trial; those of the front stand out."""
    figure = _figure("tokens trained on", f"loss ({QUANTITIES['loss'].unit})")
    for trial in trials:
        if trial.replicate_of is not None or trial.shared_with is not None or not trial.curve:
            continue
        on_front = trial.key in members
        held_out = [point for point in trial.curve if point.validation]
        training = [point for point in trial.curve if not point.validation]
        style = {"color": MEMBER if on_front else OTHER}
        figure.add_scatter(
            x=[p.tokens for p in training],
            y=[p.loss for p in training],
            mode="lines",
            line={**style, "width": 1.4 if on_front else 0.7},
            opacity=0.8 if on_front else 0.35,
            hoverinfo="skip",
            showlegend=False,
        )
        figure.add_scatter(
            x=[p.tokens for p in held_out],
            y=[p.loss for p in held_out],
            mode="markers",
            marker={**style, "size": 6 if on_front else 4},
            opacity=1.0 if on_front else 0.6,
            hovertext=[f"trial {trial.number} {trial.layout}<br>held-out loss {p.loss:.4f}" for p in held_out],
            hoverinfo="text",
            showlegend=False,
        )
    return figure


def effects_figure(rows: Sequence[tuple[str, str, float, float | None, int, str]], unit: str) -> go.Figure:
    """`rows`: choice, option, effect against the choice's mean, half-width of its 95% interval, n, method."""
    figure = _figure(f"effect on loss against the choice's mean ({unit})", "")
    labels = [f"{choice}: {option}" for choice, option, *_ in rows]
    undecided = [half is None or abs(effect) <= half for _, _, effect, half, _, _ in rows]
    figure.add_scatter(
        x=[row[2] for row in rows],
        y=labels,
        error_x={
            "type": "data",
            "array": [row[3] or 0.0 for row in rows],
            "thickness": 1.2,
            "width": 3,
            "color": OTHER,
        },
        mode="markers",
        marker={"size": 8, "color": [OTHER if thin else MEMBER for thin in undecided]},
        hovertext=[
            f"{label}<br>{row[2]:+.4f}{'' if row[3] is None else f' ± {row[3]:.4f}'}<br>n = {row[4]}, by {row[5]}"
            + ("<br>undecided" if thin else "")
            for label, row, thin in zip(labels, rows, undecided, strict=True)
        ],
        hoverinfo="text",
        showlegend=False,
    )
    figure.add_vline(x=0, line_width=1, line_color=OTHER)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(height=60 + 26 * max(3, len(rows)), margin={"l": 150})
    return figure


def _figure(x: str, y: str) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 16, "b": 52},
        height=420,
        font={"family": "inherit", "size": 13},
        legend={"orientation": "h", "y": 1.08},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title_text=x, zeroline=False, gridcolor="rgba(128,128,128,0.18)")
    figure.update_yaxes(title_text=y, zeroline=False, gridcolor="rgba(128,128,128,0.18)")
    return figure
