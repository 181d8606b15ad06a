"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import paper_tables  # noqa: E402
from markers import written as put_in  # noqa: E402

TABLES = paper_tables.tables("fusion")


def written(readme: str, trials: Sequence[Trial]) -> str:
    return put_in(readme, trials, TABLES)


def verdict(trials: Sequence[Trial]) -> str:
    return TABLES["verdict"](trials)


if __name__ == "__main__":
    readme = HERE / "README.md"
    readme.write_text(written(readme.read_text(), read_trials(HERE / "trials.parquet")))
