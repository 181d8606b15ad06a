"""A comparison of runs as one HTML page: their fronts on one picture, and each pair's values against each other."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from hybrid_nas.axes import LIGHT, SERIES, amount_axis, figure_layout, spans_a_decade
from hybrid_nas.comparison import Agreement, Comparison
from hybrid_nas.objective import QUANTITIES, Objective
from hybrid_nas.page import Figures, document, plot, table
from hybrid_nas.plot import figure, hover, intervals, safe
from hybrid_nas.rank import Correlation
from hybrid_nas.units import count, counted, duration, label, listed

if TYPE_CHECKING:
    import plotly.graph_objects as go


def comparison_page(compared: Comparison) -> str:
    figures = Figures()
    names = listed(side.name for side in compared.sides)
    body = [
        f"<header><h1>{html.escape(names)}</h1><p class='answer'>{html.escape(answer(compared))}</p></header><main>",
        "<section><h2>Fronts</h2>",
        *(f"<p class='warn'>{html.escape(text)}</p>" for text in compared.unlike),
    ]
    costs: list[Objective | None] = [*(o for o in compared.objectives if not o.trained)]
    for i, cost in enumerate(costs or [None]):
        picture = fronts_figure(compared, cost)
        beyond = (picture.layout.meta or {}).get("beyond", 0)
        caption = "Whiskers are 95% intervals."
        if beyond:
            caption += f" {counted(beyond, 'design')} far off {'is' if beyond == 1 else 'are'} out of the picture."
        body.append(plot(f"fronts-{i}", picture, caption, figures))
    rows = [
        [
            html.escape(side.name), html.escape(side.target), str(side.trained), str(side.trainings),
            count(side.budget), count(side.tokens),
            duration(side.seconds), str(len(side.front.members)), f"{side.share:.1%}",
        ]
        for side in compared.sides
    ]  # fmt: skip
    head = [
        "run",
        "target",
        "designs",
        "trainings",
        "tokens a design",
        "tokens in all",
        "training time",
        "front",
        "dominated",
    ]
    body += [
        table(head, rows, numeric=range(2, 9)),
        f"<p class='note'>{html.escape(compared.basis)}</p>",
        "</section><section><h2>Rank agreement</h2>",
    ]
    if not compared.agreements:
        body.append("<p>The runs share no trained quantity.</p>")
    for i, one in enumerate(compared.agreements):
        title = f"{one.quantity.capitalize()}: {one.first} and {one.second}"
        body.append(f"<h3>{html.escape(title)}</h3><p>{html.escape(statement(one).partition(': ')[2])}</p>")
        if one.n > 1:
            caption = "The designs that both runs trained to the end."
            body.append(plot(f"agreement-{i}", agreement_figure(one), caption, figures))
    return document("comparison", "\n".join([*body, "</section></main>"]), "", figures)


def answer(compared: Comparison) -> str:
    """What a reader came for: whose front beats more, and how far orders carry over."""
    shares = listed(f"{side.share:.0%} ({side.name})" for side in compared.sides)
    told = [
        f"The fronts beat {shares} of the common box."
        if compared.one_text
        else "The runs were trained on different text, so a lower loss says nothing of designs."
    ]
    for one in compared.agreements[:1]:
        if one.kendall is not None:
            told.append(
                f"{one.first} and {one.second} order the designs that both trained, by {one.quantity}, with Kendall's "
                f"tau {one.kendall}: {meaning(one.kendall)}."
            )
        else:
            told.append(f"They have {counted(one.n, 'design')} in common, which says nothing of their order.")
    return " ".join(told)


def meaning(tau: Correlation) -> str:
    """A tau in words.

    >>> meaning(Correlation(0.47, -0.33, 1.0, 6))
    'the interval holds 0, so it shows no agreement and rules none out'
    >>> meaning(Correlation(0.8, 0.6, 0.95, 12))
    'of two designs both call the same one better in 90% of cases (80% to 98%)'
    """
    if tau.low is None or tau.high is None:
        return "too few designs for an interval, so it shows nothing"
    if tau.low <= 0 <= tau.high:
        return "the interval holds 0, so it shows no agreement and rules none out"
    ends = f"{(1 + tau.low) / 2:.0%} to {(1 + tau.high) / 2:.0%}"
    told = f"of two designs both call the same one better in {(1 + tau.value) / 2:.0%} of cases ({ends})"
    return f"they order against each other: {told}" if tau.high < 0 else told


def statement(one: Agreement) -> str:
    """Kendall's tau with its interval and in words, Spearman's rho, and how many of the best are common."""
    have = counted(one.shared, "design")
    if one.kendall is None or one.spearman is None:
        why = "in common: too few" if one.n < 2 else "in common, too alike"
        return f"{one.quantity}: {have} {why} to be ordered."
    told = f"{one.quantity}: Kendall's tau {one.kendall}: {meaning(one.kendall)}. Spearman's rho {one.spearman}."
    if one.n < one.shared:
        told += f" Of {have} in common, those that are one trained model in both runs count once."
    if one.best_in_common and one.best_in_common[1] > 1:
        both, quarter = one.best_in_common
        told += f" Of the best {quarter} of each, {both} {'is' if both == 1 else 'are'} the same."
    return told


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
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if found is members and plain else "markers",
                    "name": safe(side.name),
                    "legendgroup": side.name,
                    "showlegend": found is members,
                    "x": [c.value(x.name) for c in found],
                    "y": [c.value(y.name) for c in found],
                    "error_y": intervals(found, y.name, colour) if found is members else {"visible": False},
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
    if (ranges := near(compared, y)) is not None:
        layout["yaxis"]["range"], layout["meta"] = ranges
    return figure(traces, layout)


def near(compared: Comparison, y: Objective) -> tuple[list[float], dict[str, int]] | None:
    """The range without designs far out, as the report has it, and how many lie beyond; None where none does."""
    import numpy as np

    found = [c for side in compared.sides for c in side.front.candidates]
    values = np.array([y.loss(c.value(y.name)) for c in found])
    low, high = np.quantile(values, [0.25, 0.75])
    fence = max(high + 3 * (high - low), *(y.loss(c.value(y.name)) for s in compared.sides for c in s.front.members))
    beyond = int((values > fence).sum())
    if not beyond:
        return None
    shown = [c for c, value in zip(found, values, strict=True) if value <= fence]
    ends = [end for c in shown if (e := c.estimates.get(y.name)) for end in (e.low, e.mean, e.high) if end is not None]
    ends = ends or [c.value(y.name) for c in shown]
    margin = 0.06 * (max(ends) - min(ends)) or 0.1
    return [min(ends) - margin, max(ends) + margin], {"beyond": beyond}


def agreement_figure(one: Agreement) -> go.Figure:
    """One dot a design: its value in either run, with intervals."""
    traces = []
    first, second = ([pair[i].estimates[one.quantity] for pair in one.pairs] for i in (0, 1))
    wide = {
        axis: intervals([pair[i] for pair in one.pairs], one.quantity, LIGHT["faint"])
        for i, axis in enumerate(("error_x", "error_y"))
    }
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
