"""Compute the README's tables from results.csv and asks.csv and write them between the marker comments.

python tables.py
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import write  # noqa: E402

Rows = list[dict[str, str]]


def read() -> Rows:
    rows: Rows = []
    for name in ("results.csv", "asks.csv"):
        if (HERE / name).exists():
            with (HERE / name).open() as file:
                rows += [{**row, "file": name} for row in csv.DictReader(file)]
    return rows


def figures(rows: Rows, storage: str) -> dict[str, dict[int, tuple[float, str]]]:
    found: dict[str, dict[int, tuple[float, str]]] = {}
    for row in rows:
        if row["file"] == "results.csv" and (row["storage"], row["stopping"], row["sampler"]) == (
            storage,
            "none",
            "random",
        ):
            found.setdefault(row["what"], {})[int(row["trials"])] = float(row["value"]), row["unit"]
    return found


def cell(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"
    return f"{value:.1f} {unit}"


def growth(points: dict[int, tuple[float, str]]) -> str:
    """The power of the number of trials that the largest and the smallest number show."""
    few, many = min(points), max(points)
    if few == many or not points[few][0]:
        return ""
    return f"{math.log(points[many][0] / points[few][0]) / math.log(many / few):.2f}"


def table(rows: Rows) -> str:
    found = figures(rows, "journal")
    sizes = sorted({size for points in found.values() for size in points})
    lines = [f"| {' | '.join(['', *(f'{size:,} trials' for size in sizes), 'grows as n to the'])} |"]
    lines.append("|---" * (len(sizes) + 2) + "|")
    for what, points in found.items():
        if what != "stopped":
            cells = [cell(*points[size]) if size in points else "" for size in sizes]
            lines.append(f"| {what} | {' | '.join(cells)} | {growth(points)} |")
    return "\n".join(lines)


def storages(rows: Rows) -> str:
    """What the storage makes a difference to, side by side."""
    wanted = ("loop, per trial", "loop, per trial, by the wall clock", "loop, per trial of the last tenth")
    wanted += (
        "size of the storage",
        "storage, read by a dashboard or a resumed search",
        "memory of the driver at its end",
    )
    found = {storage: figures(rows, storage) for storage in ("journal", "sqlite")}
    arms = [(name, n) for name, points in found.items() for n in sorted(points.get(wanted[0], {}))]
    lines = [f"| {' | '.join(['', *(f'{name}, {n:,} trials' for name, n in arms)])} |", "|---" * (len(arms) + 1) + "|"]
    for what in wanted:
        cells = [cell(*point) if (point := found[name].get(what, {}).get(n)) else "" for name, n in arms]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def asks(rows: Rows) -> str:
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["file"] == "asks.csv":
            found.setdefault(row["sampler"], {})[int(row["trials"])] = float(row["seconds"])
    sizes = sorted({size for points in found.values() for size in points})
    lines = [
        f"| {' | '.join(['sampler', *(f'after {size:,} trials' for size in sizes)])} |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for sampler, points in found.items():
        cells = [cell(points[size], "s") if size in points else "" for size in sizes]
        lines.append(f"| {sampler} | {' | '.join(cells)} |")
    return "\n".join(lines)


def breaks(rows: Rows) -> str:
    """How many workers one driver keeps busy: a trial's seconds by the driver's for it, over all sizes measured."""
    found = figures(rows, "journal")
    loop = {size: seconds for size, (seconds, _) in found["loop, per trial"].items()}
    wall = [seconds for seconds, _ in found["loop, per trial, by the wall clock"].values()]
    waits = [  # the loop hardly grows, so an ask where none was measured takes the nearest
        loop[min(loop, key=lambda size: abs(size - int(row["trials"])))] + float(row["seconds"])
        for row in rows
        if row["file"] == "asks.csv" and row["sampler"] == "ehvi"
    ]
    heads = (
        "",
        "the driver, per trial",
        "workers at a minute a trial",
        "at ten minutes",
        "for 1,000 workers, a trial of",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    arms = {"`random`": list(loop.values()), "`random`, by the wall clock": wall, "`ehvi`": waits}
    for name, seconds in arms.items():
        least, most = min(seconds), max(seconds)
        cells = [f"{cell(least, 's')} to {cell(most, 's')}"]
        cells += [f"{length / most:,.0f} to {length / least:,.0f}" for length in (60, 600)]
        longest = f"{1000 * most / 60:.0f} min" if most > 0.1 else f"{1000 * most:.0f} s"
        shortest = f"{1000 * least / 60:.0f}" if most > 0.1 else f"{1000 * least:.0f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {shortest} to {longest} |")
    return "\n".join(lines)


def verdict(rows: Rows) -> str:
    found = figures(rows, "journal")
    most = max(size for points in found.values() for size in points)
    names = ("loop, per trial", "front", "recipe", "report", "memory of the driver at its end", "size of the storage")
    parts = [f"{name} {cell(*found[name][most])}" for name in names if most in found.get(name, {})]
    return f"{most:,} trials on 64 workers, CPU time: {', '.join(parts)}"


TABLES: dict[str, Callable[[Rows], str]] = {
    "verdict": verdict,
    "growth": table,
    "storages": storages,
    "asks": asks,
    "breaks": breaks,
}


if __name__ == "__main__":
    write(HERE, read(), TABLES)
