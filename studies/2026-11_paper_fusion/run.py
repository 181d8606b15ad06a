"""Train what trials.parquet lacks, setting by setting (`../paper_settings.json`). Resumable.

python run.py [--time-limit 9min] [--processes 2]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import paper_study  # noqa: E402


def study() -> StudyFile:
    return paper_study.study(HERE, "small")


def budgets() -> set[Budget]:
    return paper_study.budgets(HERE)


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial."""
    del file, seeds
    return paper_study.jobs(HERE)


if __name__ == "__main__":
    paper_study.run(HERE)
