"""Search another recorded table under each stopping rule: the paper's arms, trained on text and tasks for 12M tokens.

python run.py [--seeds 9]    a line of results.csv a search, as in ../2026-11_stopping
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import run_of  # noqa: E402

BEFORE = HERE.parent / "2026-11_stopping"
RESULTS = HERE / "results.csv"
PARTS = tuple(HERE.parent / name / "trials.parquet" for name in ("2026-11_paper_placement", "2026-11_paper_ratio"))
TOKENS = 12_000_000


def before() -> Any:
    """`run.py` of the study before, which has the rules and the simulated workers."""
    sys.path.insert(0, str(BEFORE))
    try:
        return run_of(BEFORE)
    finally:
        sys.path.remove(str(BEFORE))


def recorded(run: Any, names: str) -> Any:
    """The table of the arms of both studies, those trained on text and tasks."""

    def kept(trial: Trial) -> bool:
        return trial.budget.tokens == TOKENS and trial.budget.recall_share == 0.5

    with patch.dict(
        run.Table.of.__func__.__globals__, read_trials=lambda _: [t for p in PARTS for t in read_trials(p)]
    ):
        return run.Table.of(PARTS[0], run.OBJECTIVES[names], kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=9)
    given = parser.parse_args()
    run = before()
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(run.COLUMNS)
        for names in run.OBJECTIVES:
            table = recorded(run, names)
            for rule in run.RULES:
                for seed in range(given.seeds):
                    writer.writerow(run.line(table, PARTS[0], names, "random", rule, seed))


if __name__ == "__main__":
    main()
