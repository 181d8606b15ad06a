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
BARE = "random, bare"
BUDGETS = ("0.05", "0.1", "0.15", "0.2", "0.3")


def read() -> Rows:
    with (HERE / "results.csv").open() as file:
        return list(csv.DictReader(file))


def arms(rows: Rows, objectives: str) -> dict[str, Rows]:
    """The samplers, best first by the mean worth at the last budget."""
    found: dict[str, Rows] = {}
    for row in rows:
        if row["objectives"] == objectives:
            found.setdefault(row["sampler"], []).append(row)
    return dict(sorted(found.items(), key=lambda arm: -mean(column(arm[1], "at 0.3"))))


def column(rows: Rows, name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def until(rows: Rows, share: str) -> float:
    return median(column(rows, f"until {share}"))


def shown(value: float) -> str:
    return "not by 0.3" if value == float("inf") else f"{value:.3f}"


def table(rows: Rows, objectives: str) -> str:
    shares = ("0.8", "0.9", "0.95")
    heads = [
        "sampler",
        *(f"worth at {b}" for b in BUDGETS),
        *(f"tokens until {s}" for s in shares),
        "of random's",
        "seeds",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    found = arms(rows, objectives)
    chance = until(found[BARE], "0.95")
    for sampler, searches in found.items():
        cells = [f"{mean(column(searches, f'at {budget}')):.3f}" for budget in BUDGETS]
        cells += [shown(until(searches, share)) for share in shares]
        spent = until(searches, "0.95")
        cells.append("" if spent == float("inf") else f"{spent / chance:.2f}")
        lines.append(f"| {sampler} | {' | '.join(cells)} | {len(searches)} |")
    return "\n".join(lines)


def verdict(rows: Rows) -> str:
    parts = []
    for objectives in (TWO, ALL):
        found = arms(rows, objectives)
        chance, ours = until(found[BARE], "0.95"), until(found["ehvi"], "0.95")
        parts.append(
            f"{objectives}: 0.95 after {ours:.3f} of the tokens, random order {chance:.3f} ({ours / chance:.2f} of it)"
        )
    n = min(len(arms(rows, names)[sampler]) for names in (TWO, ALL) for sampler in ("ehvi", BARE))
    return f"`ehvi`, median of n = {n} seeds. {'; '.join(parts)}"


TABLES: dict[str, Callable[[Rows], str]] = {
    "verdict": verdict,
    "two": lambda rows: table(rows, TWO),
    "three": lambda rows: table(rows, ALL),
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
