"""Train what trials.parquet lacks: every design of study.yaml at each seed. Resumable; a GPU where there is one.

python run.py [--seeds 3] [--time-limit 9min] [--processes 4] [--at-once 4]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.cli import app
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import proposals

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from paper_study import text_of  # noqa: E402


def study() -> StudyFile:
    source = HERE / "study.yaml"
    return read_study(source.read_text(), str(source), (), HERE.resolve())


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial, seed by seed."""
    every = proposals([file], None)
    return [(seed * len(every) + i, proposal, seed) for seed in range(seeds) for i, proposal in enumerate(every)]


if __name__ == "__main__":
    text_of(study())
    app(["table", str(HERE / "study.yaml"), "--out", str(HERE / "trials.parquet"), *sys.argv[1:]])
