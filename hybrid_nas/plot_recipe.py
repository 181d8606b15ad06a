"""Pictures of the recipe: effects with intervals, interactions, and what attention is worth at each depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hybrid_nas.axes import LIGHT, SERIES, figure_layout
from hybrid_nas.interactions import Interaction
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.plot import figure, safe, whiskers
from hybrid_nas.positions import PositionMap
from hybrid_nas.recipe import Recipe
from hybrid_nas.units import bare

if TYPE_CHECKING:
    import plotly.graph_objects as go


def effects_figure(recipe: Recipe, quantity: str) -> go.Figure:
    """Each option against the mean of its choice's other options, with 95% intervals; rules most worth first.

    Filled in one colour: none is shown to beat it where the choice is decided. Filled in the other: beaten. Hollow:
    undecided. A cross: too few trainings for a claim, whatever its place.
    """
    rows: list[tuple[str, Any, str]] = []  # label, effect, look
    for rule in recipe.rules:
        evidence = next((e for e in rule.evidence if e.quantity == quantity), None)
        if evidence is None:
            continue
        on = f", depends on {safe(', '.join(evidence.depends_on))}" if evidence.depends_on else ""
        rows.append((f"<b>{safe(rule.choice)}</b>{on or ('' if evidence.decided else ', undecided')}", None, ""))
        for option in evidence.options:
            beaten, kept = option.option in evidence.beaten, option.option in evidence.kept
            look = "beaten" if beaten else "ahead" if evidence.decided and kept else "undecided"
            look = "thin" if option.thin else look
            rows.append((safe(option.option) + (f" (n = {option.n})" if option.thin else ""), option, look))
    looks = {
        "ahead": (LIGHT["accent"], "circle", "not beaten by any option"),
        "beaten": (LIGHT["against"], "circle", "beaten by some option"),
        "undecided": (LIGHT["muted"], "circle-open", "undecided"),
        "thin": (LIGHT["faint"], "x-thin-open", "fewer than 3 trainings"),
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
                    "error_x": whiskers([(o.low, o.effect, o.high) for _, o in shown], colour),
                    "marker": {"color": colour, "symbol": symbol, "size": 8},
                    "text": [
                        f"{safe(o.option)}: {bare(o.effect, unit, True)} "
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
    return figure(traces, layout)


def interaction_figure(interaction: Interaction) -> go.Figure:
    """Mean of the designs with two options: a line for each option of the first choice, over the second's."""
    one, two = interaction.choices
    unit = _unit(interaction.quantity)
    seconds = list(dict.fromkeys(cell.second for cell in interaction.cells))
    traces: list[dict[str, Any]] = []
    firsts = list(dict.fromkeys(cell.first for cell in interaction.cells))
    for i, first in enumerate(firsts):
        colour = LIGHT[SERIES[i % len(SERIES)]]
        cells = [cell for cell in interaction.cells if cell.first == first]
        shift = 0.08 * (i - (len(firsts) - 1) / 2)  # side by side, so that whiskers do not cover each other
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{safe(one)} {safe(first)}",
                "x": [seconds.index(cell.second) + shift for cell in cells],
                "y": [cell.mean for cell in cells],
                "error_y": whiskers([(cell.low, cell.mean, cell.high) for cell in cells], colour),
                "line": {"color": colour, "width": 1.4},
                "marker": {"color": colour, "size": 7},
                "text": [
                    f"{safe(one)} {safe(first)}, {safe(two)} {safe(c.second)}: {bare(c.mean, unit)} "
                    f"[{bare(c.low, unit)}, {bare(c.high, unit)}], n = {c.n}"
                    for c in cells
                ],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    layout = figure_layout(height=320, legend=True)
    layout["xaxis"] |= {"title": {"text": two}, "tickvals": list(range(len(seconds))), "ticktext": seconds}
    layout["yaxis"]["title"] = {"text": _titled(interaction.quantity)}
    return figure(traces, layout)


def positions_figure(one: PositionMap) -> go.Figure:
    """What one layer is worth in each part of the depth, with its interval; parts without an estimate stay empty."""
    unit = _unit(one.quantity)
    told = [(i, part) for i, part in enumerate(one.parts) if part.effect is not None and part.high is not None]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [i for i, _ in told],
        "y": [part.effect for _, part in told],
        "error_y": whiskers(
            [(part.low or 0.0, part.effect or 0.0, part.high or 0.0) for _, part in told], LIGHT["accent"]
        ),
        "marker": {"color": LIGHT["accent"], "size": 9},
        "text": [
            f"{part.part}: {bare(part.effect or 0, unit, True)} [{bare(part.low or 0, unit, True)}, "
            f"{bare(part.high or 0, unit, True)}], {part.n} designs"
            for _, part in told
        ],
        "hovertemplate": "%{text}<extra></extra>",
    }
    layout = figure_layout(height=300, legend=False)
    names = [part.part.replace(" ", "<br>") for part in one.parts]
    layout["xaxis"] |= {"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.5, len(names) - 0.5]}
    layout["yaxis"] |= {
        "title": {"text": _titled(one.quantity)},
        "zeroline": True,
        "zerolinecolor": LIGHT["faint"],
        "zerolinewidth": 1,
    }
    return figure([trace], layout)


def _unit(quantity: str) -> str:
    return QUANTITIES[quantity].unit if quantity in QUANTITIES else ""


def _titled(quantity: str) -> str:
    unit = _unit(quantity)
    return quantity if unit in ("", "accuracy") else f"{quantity}, {unit}"
