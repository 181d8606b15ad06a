"""Compute the README's tables from results.csv and write them between the marker comments.

python tables.py
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import write  # noqa: E402

Rows = list[dict[str, str]]
ALL = "loss, recall, cache"
TWO = "loss, cache"
BARE = "random, bare"
PRODUCT = "random"
GOAL = 0.25
DRAWS = 4000
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
        "of `random, bare`'s",
        "of `random`'s",
        "seeds",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    found = arms(rows, objectives)
    chances = [until(found[name], "0.95") for name in (BARE, PRODUCT)]
    for sampler, searches in found.items():
        cells = [f"{mean(column(searches, f'at {budget}')):.3f}" for budget in BUDGETS]
        cells += [shown(until(searches, share)) for share in shares]
        spent = until(searches, "0.95")
        cells += ["" if spent == float("inf") else f"{spent / chance:.2f}" for chance in chances]
        lines.append(f"| {sampler} | {' | '.join(cells)} | {len(searches)} |")
    return "\n".join(lines)


def against(ours: Rows, others: Rows) -> tuple[float, float, float]:
    """What the first spend until 0.95 by what the others do (medians), with a bootstrap's 95% interval over seeds."""
    first, second = ({row["seed"]: float(row["until 0.95"]) for row in rows} for rows in (ours, others))
    seeds, rng = sorted(first.keys() & second.keys()), random.Random(0)
    draws = [rng.choices(seeds, k=len(seeds)) for _ in range(DRAWS)]
    ratios = sorted(median(first[s] for s in drawn) / median(second[s] for s in drawn) for drawn in draws)
    tail = round(0.025 * DRAWS)
    return until(ours, "0.95") / until(others, "0.95"), ratios[tail], ratios[-1 - tail]


def verdict(rows: Rows) -> str:
    references = {BARE: "`random, bare`", PRODUCT: "the product's own `random`"}
    parts = []
    for objectives in (TWO, ALL):
        found = arms(rows, objectives)
        told = [f"{objectives}: 0.95 after {until(found['ehvi'], '0.95'):.3f} of the tokens"]
        for name, words in references.items():
            ratio, low, high = against(found["ehvi"], found[name])
            goal = "not met" if ratio > GOAL else "met" if high <= GOAL else "met, not beyond doubt"
            spent = until(found[name], "0.95")
            told.append(f"{ratio:.2f} [{low:.2f}, {high:.2f}] of the {spent:.3f} of {words} (goal {goal})")
        parts.append(", ".join(told))
    n = min(len(arms(rows, names)[sampler]) for names in (TWO, ALL) for sampler in ("ehvi", *references))
    return (
        f"`ehvi`, median of n = {n} seeds, goal {GOAL} of random search. {'; '.join(parts)}. "
        "`random, bare` is plain random order, without the product's first trials"
    )


TABLES: dict[str, Callable[[Rows], str]] = {
    "verdict": verdict,
    "two": lambda rows: table(rows, TWO),
    "three": lambda rows: table(rows, ALL),
}


if __name__ == "__main__":
    write(HERE, read(), TABLES)
