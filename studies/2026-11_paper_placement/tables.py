"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.trial import read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import paper_tables  # noqa: E402
from markers import write  # noqa: E402

TABLES = paper_tables.tables("placement")


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
