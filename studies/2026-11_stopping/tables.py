"""Compute the README's tables from results.csv and write them between the marker comments.

python tables.py
"""

from __future__ import annotations

import csv
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
TOLERATED = 0.005  # worth that a threshold may lose against no stopping where it is chosen


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


def halves(objectives: str) -> dict[tuple[str, str], dict[str, tuple[float, float]]]:
    """(split, half) -> rule -> mean worth at its end and mean tokens, of held_out.csv."""
    with (HERE / "held_out.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["objectives"] == objectives]
    found: dict[tuple[str, str], dict[str, Rows]] = {}
    for row in rows:
        found.setdefault((row["split"], row["half"]), {}).setdefault(row["rule"], []).append(row)
    return {
        half: {rule: (mean(column(r, "worth")), mean(column(r, "spent"))) for rule, r in rules.items()}
        for half, rules in found.items()
    }


def held_out(rows: Rows) -> str:
    lines = ["| objectives | threshold | worth lost | at worst | tokens spent in all | halves |", "|---" * 6 + "|"]
    for objectives in (TWO, ALL):
        found = halves(objectives)
        rules = [rule for rule in next(iter(found.values())) if rule != "none"]
        arms = {rule.removeprefix("front, "): dict.fromkeys(found, rule) for rule in rules}
        chosen = {}
        for split, half in found:
            other = found[split, "1" if half == "0" else "0"]
            kept = [rule for rule in rules if other["none"][0] - other[rule][0] <= TOLERATED]
            chosen[split, half] = kept[-1] if kept else "none"
        counts = [f"{rule.removeprefix('front, ')} {n} times" for rule in (*rules, "none")
                  if (n := list(chosen.values()).count(rule))]  # fmt: skip
        arms[f"chosen on the other half ({', '.join(counts)})"] = chosen
        for name, rule_of in arms.items():
            lost = [found[half]["none"][0] - found[half][rule][0] for half, rule in rule_of.items()]
            spent = mean(found[half][rule][1] for half, rule in rule_of.items())
            cells = f"{mean(lost):.4f} | {max(lost):.4f} | {spent:.3f} | {len(found)}"
            lines.append(f"| {objectives} | {name} | {cells} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Rows], str]] = {
    "verdict": verdict,
    "two": lambda rows: table(rows, TWO, "random"),
    "three": lambda rows: table(rows, ALL, "random"),
    "held-out": held_out,
    "two-ehvi": lambda rows: table(rows, TWO, "ehvi"),
    "three-ehvi": lambda rows: table(rows, ALL, "ehvi"),
}


if __name__ == "__main__":
    write(HERE, read(), TABLES)
