"""Train what trials.parquet lacks, setting by setting. Resumable; a GPU where there is one.

python run.py [--time-limit 9min] [--at-once 3]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.cli import app
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import merged, proposals
from hybrid_nas.trial import write_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from paper_study import text_of  # noqa: E402

WORDS = ("data=manuals/manuals-bpe1024.npz", "proxy.vocab=1024")
SETTINGS: dict[str, tuple[str, ...]] = {
    "words, a quarter induction": WORDS,
    "words": (*WORDS, "budget.recall_share=0"),
    "bytes, a quarter induction": (),
    "words, a quarter induction, twice the rate": (*WORDS, "budget.learning_rate=3e-3"),
}


def settings(name: str) -> StudyFile:
    source = HERE / "study.yaml"
    return read_study(source.read_text(), str(source), SETTINGS[name], HERE.resolve())


def study() -> StudyFile:
    return settings("bytes, a quarter induction")


def budgets() -> set[Budget]:
    return {settings(name).budget for name in SETTINGS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: setting by setting."""
    del file
    pairs = [(p, seed) for name in SETTINGS for seed in range(seeds) for p in proposals([settings(name)], None)]
    return [(number, proposal, seed) for number, (proposal, seed) in enumerate(pairs)]


def assemble(parts: list[Path]) -> None:
    """trials.parquet out of the parts of the settings, in their order."""
    found = [trial for part in parts for trial in merged([part])[0]]
    write_trials([t.with_changes(number=i) for i, t in enumerate(found)], HERE / "trials.parquet")


if __name__ == "__main__":
    parts = [HERE / "parts" / f"{i}.parquet" for i in range(len(SETTINGS))]
    for name in SETTINGS:
        text_of(settings(name))
    for part, changes in zip(parts, SETTINGS.values(), strict=True):
        command = ["table", str(HERE / "study.yaml"), "--seeds", "1", "--out", str(part), *sys.argv[1:]]
        app([*command, *(word for change in changes for word in ("--set", change))], standalone_mode=False)
    assemble(parts)
