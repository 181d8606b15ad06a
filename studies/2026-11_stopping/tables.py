"""Compute the README's tables from results.csv and write them between the marker comments.

python tables.py
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

HERE = Path(__file__).parent
README = HERE / "README.md"
Rows = list[dict[str, str]]
ALL = "loss, recall, cache"
TWO = "loss, cache"


def read() -> Rows:
    with (HERE / "results.csv").open() as file:
        return list(csv.DictReader(file))


def arms(rows: Rows, objectives: str, order: str) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in rows:
        if (row["objectives"], row["order"]) == (objectives, order):
            found.setdefault(row["rule"], []).append(row)
    return found


def column(rows: Rows, name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def until(rows: Rows, share: str) -> str:
    """The median, or never where half of the searches never had it."""
    value = median(column(rows, f"until {share}"))
    return "never" if value == float("inf") else f"{value:.3f}"


def table(rows: Rows, objectives: str, order: str) -> str:
    budgets = ("0.1", "0.2", "0.3", "0.5") if order == "random" else ("0.1", "0.2", "0.3")
    heads = ["rule", "tokens spent in all", "worth at its end", *(f"worth at {b}" for b in budgets), "tokens until 0.9"]
    lines = [f"| {' | '.join([*heads, 'tokens until 0.95', 'seeds'])} |", "|---" * (len(heads) + 2) + "|"]
    for rule, found in arms(rows, objectives, order).items():
        cells = [f"{mean(column(found, 'spent')):.3f}", f"{mean(column(found, 'worth')):.3f}"]
        cells += [f"{mean(column(found, f'at {budget}')):.3f}" for budget in budgets]
        cells += [until(found, "0.9"), until(found, "0.95"), str(len(found))]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(rows: Rows) -> str:
    def said(objectives: str) -> str:
        found = arms(rows, objectives, "random")
        names = ("front, 0.1", "margin, 3 by 0", "syne-tune MOASHA, 2", "syne-tune ASHA on loss, 2")
        parts = []
        for name in names:
            worth, spent = mean(column(found[name], "worth")), mean(column(found[name], "spent"))
            parts.append(f"{name}: {worth:.3f} for {spent:.2f} of the tokens")
        return "; ".join(parts)

    n = min(len(found) for found in arms(rows, ALL, "random").values())
    whole = {names: mean(column(arms(rows, names, "random")["none"], "worth")) for names in (TWO, ALL)}
    return (
        f"share of the best hypervolume at the end of the list, n = {n} seeds. {TWO} (without stopping "
        f"{whole[TWO]:.3f}): {said(TWO)}. {ALL} (without {whole[ALL]:.3f}): {said(ALL)}"
    )


TABLES: dict[str, Callable[[Rows], str]] = {
    "verdict": verdict,
    "two": lambda rows: table(rows, TWO, "random"),
    "three": lambda rows: table(rows, ALL, "random"),
    "two-ehvi": lambda rows: table(rows, TWO, "ehvi"),
    "three-ehvi": lambda rows: table(rows, ALL, "ehvi"),
}


def written(readme: str, rows: Rows) -> str:
    for name, made in TABLES.items():
        before, after = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if len(re.findall(re.escape(before) + ".*?" + re.escape(after), readme, flags=re.S)) != 1:
            raise ValueError(f"README.md: the markers of {name} must stand once")
        start, end = readme.index(before) + len(before), readme.index(after)
        readme = f"{readme[:start]}{made(rows)}\n{readme[end:]}"
    return readme


if __name__ == "__main__":
    README.write_text(written(README.read_text(), read()))
