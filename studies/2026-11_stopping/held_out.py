"""The threshold of `front`, chosen on one half of the recorded designs and tried on the other: lines of held_out.csv.

python held_out.py [--table ../2026-11_hybrid_table] [--splits 10]

A split halves the designs at random. On each half every threshold is tried, at each seed of the table; `tables.py`
takes the choice on one half to the other.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

from run import OBJECTIVES, RULES, WORKERS, Ours
from simulate import Table, at_random, search

HERE = Path(__file__).parent
RESULTS = HERE / "held_out.csv"
COLUMNS = ("objectives", "split", "half", "rule", "seed", "spent", "worth")
TRIED = ("none", "front, 0.02", "front, 0.05", "front, 0.1", "front, 0.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=HERE.parent / "2026-11_hybrid_table")
    parser.add_argument("--splits", type=int, default=10)
    given = parser.parse_args()
    path = given.table / "trials.parquet"
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for names, objectives in OBJECTIVES.items():
            keys = sorted(trial.key for trial in Table.of(path, objectives).trials)
            for split in range(given.splits):
                first = set(random.Random(split).sample(keys, len(keys) // 2))
                for half in (0, 1):
                    table = Table.of(
                        path, objectives, lambda t, first=first, half=half: (t.key in first) == (half == 0)
                    )
                    whole = table.tokens[-1] * len(table.trials)
                    for rule in TRIED:
                        for seed in range(len(table.seeds)):
                            order = at_random(table, len(table.seeds) * split + seed)
                            trace = search(table, order, Ours(table, **RULES[rule]), seed, WORKERS, whole)
                            spent, worth = trace[-1]
                            writer.writerow([names, split, half, rule, seed, f"{spent / whole:.4f}", f"{worth:.4f}"])
                file.flush()
                print(names, split, flush=True)


if __name__ == "__main__":
    main()
