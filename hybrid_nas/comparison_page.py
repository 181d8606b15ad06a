"""A comparison of runs as one HTML page: their fronts on one picture, and each pair's values against each other."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from hybrid_nas.axes import LIGHT, SERIES, amount_axis, figure_layout, spans_a_decade
from hybrid_nas.comparison import Agreement, Comparison
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.page import Figures, document, plot, table
from hybrid_nas.plot import figure, hover, safe
from hybrid_nas.units import count, duration, label, listed

if TYPE_CHECKING:
    import plotly.graph_objects as go


def comparison_page(compared: Comparison) -> str:
    figures = Figures()
    names = listed(side.name for side in compared.sides)
    body = [
        f"<header><h1>{html.escape(names)}</h1><p class='answer'>{html.escape(answer(compared))}</p></header><main>",
        "<section><h2>Fronts</h2>",
    ]
    costs: list[Objective | None] = [*(o for o in compared.objectives if not o.trained)]
    for i, cost in enumerate(costs or [None]):
        body.append(plot(f"fronts-{i}", fronts_figure(compared, cost), "Whiskers are 95% intervals.", figures))
    if not compared.one_target:
        body.append("<p class='warn'>The runs have different targets: their costs are not of the same models.</p>")
    if len({side.budget for side in compared.sides}) > 1:
        body.append(
            "<p class='warn'>The runs spend different budgets on a design: a lower loss may be the longer training.</p>"
        )
    rows = [
        [
            html.escape(side.name), html.escape(side.target), str(side.trials), count(side.budget), count(side.tokens),
            duration(side.seconds), str(len(side.front.members)), f"{side.share:.1%}",
        ]
        for side in compared.sides
    ]  # fmt: skip
    head = ["run", "target", "trials", "tokens a design", "tokens in all", "training time", "front", "dominated"]
    body += [
        table(head, rows, numeric=range(2, 8)),
        f"<p class='note'>{html.escape(compared.basis)}</p>",
        "</section><section><h2>Rank agreement</h2>",
    ]
    if not compared.agreements:
        body.append("<p>The runs share no trained quantity.</p>")
    for i, one in enumerate(compared.agreements):
        body.append(f"<h3>{html.escape(f'{one.first} and {one.second}')}</h3><p>{html.escape(statement(one))}</p>")
        if one.n > 1:
            caption = "The designs that both runs trained to the end."
            body.append(plot(f"agreement-{i}", agreement_figure(one), caption, figures))
    return document("comparison", "\n".join([*body, "</section></main>"]), "", figures)


def answer(compared: Comparison) -> str:
    """What a reader came for: whose front beats more, and how far orders carry over."""
    shares = listed(f"{side.share:.0%} ({side.name})" for side in compared.sides)
    told = f"The fronts beat {shares} of the common box."
    for one in compared.agreements[:1]:
        if one.kendall is not None:
            told += (
                f" {one.first} and {one.second} order the designs that both trained, by {one.quantity}, with Kendall's "
                f"tau {one.kendall}."
            )
    return told


def statement(one: Agreement) -> str:
    """
    A sentence: Kendall's tau with its interval, Spearman's rho, and how many of the best are common.
    """
    if one.kendall is None or one.spearman is None:
        return f"{one.quantity}: {one.n} designs in common, too few or too alike to be ordered."
    best = ""
    if one.best_in_common:
        both, quarter = one.best_in_common
        best = f"; of the best quarter ({quarter}) {both} {'is' if both == 1 else 'are'} in both"
    thin = " (too few designs for an interval)" if one.kendall.low is None else ""
    return f"{one.quantity}: Kendall's tau {one.kendall}; Spearman's rho {one.spearman}{best}{thin}."


def fronts_figure(compared: Comparison, cost: Objective | None = None) -> go.Figure:
    """The fronts as steps, a colour a run, with the other designs faint behind them."""
    y = next((o for o in compared.objectives if o.trained), compared.objectives[0])
    x = cost or next((o for o in compared.objectives if o is not y), Objective.named("cache_bytes"))
    plain = len(compared.objectives) == 2
    traces: list[dict[str, Any]] = []
    values = [c.value(x.name) for side in compared.sides for c in side.front.candidates]
    for i, side in enumerate(compared.sides):
        colour = LIGHT[SERIES[i % len(SERIES)]]
        members = sorted(side.front.members, key=lambda c: (x.loss(c.value(x.name)), y.loss(c.value(y.name))))
        rest = [c for c in side.front.candidates if not c.member]
        for found, size, opacity in ((rest, 5, 0.35), (members, 9, 1.0)):
            estimates = [c.estimates.get(y.name) for c in found]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if found is members and plain else "markers",
                    "name": safe(side.name),
                    "legendgroup": side.name,
                    "showlegend": found is members,
                    "x": [c.value(x.name) for c in found],
                    "y": [c.value(y.name) for c in found],
                    "error_y": {
                        "array": [0.0 if e is None or e.high is None else e.high - e.mean for e in estimates],
                        "color": colour, "thickness": 1, "width": 0, "visible": found is members,
                    },
                    "line": {"color": colour, "width": 1.2, "shape": "hv"},
                    "marker": {"color": colour, "size": size},
                    "opacity": opacity,
                    "text": [f"{safe(side.name)}<br>{hover(c)}" for c in found],
                    "hovertemplate": "%{text}<extra></extra>",
                }
            )  # fmt: skip
    layout = figure_layout(height=440, legend=True)
    layout["xaxis"] |= amount_axis(x, values, spans_a_decade(values))
    layout["yaxis"]["title"] = {"text": f"{label(y.name)}, {y.unit}" if y.trained else label(y.name)}
    return figure(traces, layout)


def agreement_figure(one: Agreement) -> go.Figure:
    """One dot a design: its value in either run, with intervals."""
    traces = []
    first, second = ([pair[i].estimates[one.quantity] for pair in one.pairs] for i in (0, 1))
    wide = {
        axis: {
            "array": [0.0 if e.high is None else e.high - e.mean for e in side],
            "color": LIGHT["faint"], "thickness": 1, "width": 0,
        }
        for axis, side in (("error_x", first), ("error_y", second))
    }  # fmt: skip
    traces.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [e.mean for e in first],
            "y": [e.mean for e in second],
            **wide,
            "marker": {"color": LIGHT["accent"], "size": 8},
            "text": [f"{hover(a)}" for a, _ in one.pairs],
            "hovertemplate": "%{text}<extra></extra>",
        }
    )
    unit = QUANTITIES[one.quantity].unit
    layout = figure_layout(height=380, legend=False)
    layout["xaxis"]["title"] = {"text": f"{one.quantity} in {safe(one.first)}, {unit}"}
    layout["yaxis"]["title"] = {"text": f"{one.quantity} in {safe(one.second)}, {unit}"}
    return figure(traces, layout)
