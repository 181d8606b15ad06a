"""The look of every picture: colours in a light and a dark form, and axes in units that a person reads."""

from __future__ import annotations

import math
from typing import Any

from hybrid_nas.objective import Objective
from hybrid_nas.units import label, readable

LIGHT = {
    "ink": "#1d1c1a",
    "muted": "#6f6c66",
    "faint": "#bdb9b1",
    "grid": "#ebe8e1",
    "paper": "#fdfcf9",
    "accent": "#24598a",
    "against": "#b2502a",
    "band": "rgba(36,89,138,0.10)",
    "third": "#3f7d5a",
    "fourth": "#8a5a9e",
    "fifth": "#a8852a",
}
DARK = {
    "ink": "#e9e6e0",
    "muted": "#a09c94",
    "faint": "#7d7973",
    "grid": "#2d2b29",
    "paper": "#191817",
    "accent": "#84b6e2",
    "against": "#e5946c",
    "band": "rgba(132,182,226,0.13)",
    "third": "#7fc29b",
    "fourth": "#c59ad6",
    "fifth": "#dcbb62",
}
SERIES = ("accent", "against", "third", "fourth", "fifth", "muted")


def amount_axis(objective: Objective, values: list[float], logarithmic: bool) -> dict[str, Any]:
    """Ticks a person reads: MiB and GFLOP, not scientific notation."""
    title = {"text": f"{label(objective.name)}{' (log)' if logarithmic else ''}"}
    if not values or objective.trained:
        return {"title": title}
    step = 1024.0 if objective.unit.startswith("bytes") else 1000.0
    low, high = min(values), max(values)
    if logarithmic:
        powers = range(math.floor(math.log(low, step)), math.ceil(math.log(high, step)) + 1)
        inner = (1, 4, 16, 64, 256) if step == 1024 else (1, 3, 10, 30, 100, 300)
        ticks = [step**p * k for p in powers for k in inner]
        ticks = [tick for tick in ticks if 0.7 * low <= tick <= 1.4 * high]
    else:
        unit = step ** math.floor(math.log(max(high, 1), step))
        raw = max(high - low, high * 0.05) / unit / 4
        nice = 10 ** math.floor(math.log10(raw)) if raw > 0 else 1
        gap = unit * next(k * nice for k in (1, 2, 5, 10) if k * nice >= raw)
        ticks = [gap * i for i in range(math.floor(low / gap), math.ceil(high / gap) + 1)]
    texts = [readable(tick, objective.unit) for tick in ticks]
    return {"title": title, "tickvals": ticks, "ticktext": texts, "type": "log" if logarithmic else "linear"}


def spans_a_decade(values: list[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > 10


def figure_layout(height: int, legend: bool) -> dict[str, Any]:
    axis = {"gridcolor": LIGHT["grid"], "linecolor": LIGHT["faint"], "zeroline": False, "automargin": True}
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": LIGHT["muted"], "size": 13},
        "hoverlabel": {
            "bgcolor": LIGHT["paper"],
            "font": {"color": LIGHT["ink"], "size": 12},
            "align": "left",
            "bordercolor": LIGHT["faint"],
            "namelength": -1,
        },
        "hovermode": "closest",
        "dragmode": False,
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }
