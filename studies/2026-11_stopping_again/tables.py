"""Compute the README's tables from results.csv and write them between the marker comments.

python tables.py
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import write  # noqa: E402

Rows = list[dict[str, str]]
ALL = "loss, recall, cache"
TWO = "loss, cache"
THRESHOLDS = ("front, 0.05", "front, 0.1", "front, 0.2")


def read() -> Rows:
    with (HERE / "results.csv").open() as file:
        return list(csv.DictReader(file))


def arms(rows: Rows, objectives: str) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in rows:
        if row["objectives"] == objectives:
            found.setdefault(row["rule"], []).append(row)
    return found


def average(rows: Rows, name: str) -> float:
    return mean(float(row[name]) for row in rows)


def table(rows: Rows, objectives: str) -> str:
    heads = ("rule", "tokens spent in all", "worth at its end", "lost, mean", "lost, at worst", "seeds")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    found = arms(rows, objectives)
    whole = {row["seed"]: float(row["worth"]) for row in found["none"]}
    for rule, searches in found.items():
        lost = [whole[row["seed"]] - float(row["worth"]) for row in searches]
        cells = [rule, *(f"{average(searches, name):.3f}" for name in ("spent", "worth"))]
        cells += [f"{mean(lost):.4f}", f"{max(lost):.4f}", str(len(searches))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(rows: Rows) -> str:
    def said(objectives: str) -> str:
        found = arms(rows, objectives)
        parts = [
            f"{rule}: {average(found[rule], 'worth'):.3f} for {average(found[rule], 'spent'):.2f} of the tokens"
            for rule in THRESHOLDS
        ]
        return f"{objectives} (without stopping {average(found['none'], 'worth'):.3f}): {'; '.join(parts)}"

    n = min(len(found) for objectives in (TWO, ALL) for found in arms(rows, objectives).values())
    return f"share of the best hypervolume, n = {n} seeds. {said(TWO)}. {said(ALL)}"


TABLES: dict[str, Callable[[Rows], str]] = {
    "verdict": verdict,
    "two": lambda rows: table(rows, TWO),
    "three": lambda rows: table(rows, ALL),
}


if __name__ == "__main__":
    write(HERE, read(), TABLES)
