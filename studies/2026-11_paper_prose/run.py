"""Train what trials.parquet lacks, setting by setting. Resumable, in slices; a GPU where there is one.

python run.py [--time-limit 9min] [--processes 4] [--at-once 7]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile
from hybrid_nas.trial import Trial

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from grown import Grown, Setting  # noqa: E402

LARGER_STATE = ("proxy.d_state=64", "proxy.ffn_hidden=560", "proxy.params=4200000", "budget.tokens=30000000")
"""With wider FFNs the arms keep their layers at equal parameters."""
RATE = "budget.learning_rate=6e-3"
REPEATED = ("budget.tasks=[repeat]", "budget.recall_share=0.125")
"""One sequence of eight is a piece of the text over and over."""
SETTINGS = {
    "state 16": Setting(seeds=2),
    "half": Setting(("budget.tokens=18000000",), seeds=2),
    "state 64": Setting(LARGER_STATE),
    "state 64, four times the rate": Setting((*LARGER_STATE, RATE)),
    "repeated": Setting(REPEATED),
    "split": Setting(arms="told_split.yaml"),
    "positions": Setting(arms="told_positions.yaml"),
}
GPU_SECONDS = {
    "state 16": 21.4,
    "half": 11.5,
    "state 64": 18.1,
    "state 64, four times the rate": 19.2,
    "repeated": 22.1,
    "split": 30.0,
    "positions": 22.8,
}
"""Of a training, packed: the wall clock of the slices in which they ran, times their GPUs, over the trainings (of
`half`: less the minute in which one of the GPUs measured something else)."""
GROWN = Grown(HERE, SETTINGS)


def study() -> StudyFile:
    return GROWN.study("state 16")


def budgets() -> set[Budget]:
    return {GROWN.study(name).budget for name in SETTINGS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: setting by setting, seed by seed, in the order of the arms."""
    del file, seeds
    return GROWN.jobs()


def of_settings(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    return GROWN.of_settings(trials)


if __name__ == "__main__":
    GROWN.train(sys.argv[1:])
