"""Train what trials.parquet lacks, setting by setting. Resumable; a GPU where there is one.

python run.py [--time-limit 9min] [--at-once 3]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from grown import Grown, Setting  # noqa: E402

WORDS = ("data=manuals/manuals-bpe1024.npz", "proxy.vocab=1024")
SETTINGS = {
    "words, a quarter induction": Setting(WORDS),
    "words": Setting((*WORDS, "budget.recall_share=0")),
    "bytes, a quarter induction": Setting(),
    "words, a quarter induction, twice the rate": Setting((*WORDS, "budget.learning_rate=3e-3")),
}
GROWN = Grown(HERE, SETTINGS)


def study() -> StudyFile:
    return GROWN.study("bytes, a quarter induction")


def budgets() -> set[Budget]:
    return {GROWN.study(name).budget for name in SETTINGS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: setting by setting."""
    del file, seeds
    return GROWN.jobs()


if __name__ == "__main__":
    GROWN.train(sys.argv[1:])
