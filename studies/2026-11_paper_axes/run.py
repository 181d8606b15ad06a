"""Train what trials.parquet lacks, setting by setting. Resumable; a GPU where there is one.

python run.py [--time-limit 9min] [--processes 4] [--at-once 5]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import merged, proposals, setting_of, write_part
from hybrid_nas.trial import Trial, read_trials, write_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from paper_study import text_of, typed  # noqa: E402

SETTINGS: dict[str, tuple[str, ...]] = {
    "a tenth of the rate": ("budget.learning_rate=3e-4",),
    "a third of the rate": ("budget.learning_rate=1e-3",),
    "half the depth": ("proxy.params=560000",),
    "a quarter of the context": ("proxy.context=256", "budget.batch=32"),
    "four times the batch": ("budget.batch=32",),
}


def settings(name: str) -> StudyFile:
    source = HERE / "study.yaml"
    return read_study(source.read_text(), str(source), SETTINGS[name], HERE.resolve())


def study() -> StudyFile:
    return settings("a tenth of the rate")


def budgets() -> set[Budget]:
    return {settings(name).budget for name in SETTINGS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: setting by setting."""
    del file
    pairs = [(p, seed) for name in SETTINGS for seed in range(seeds) for p in proposals([settings(name)], None)]
    return [(number, proposal, seed) for number, (proposal, seed) in enumerate(pairs)]


def of_settings(trials: list[Trial]) -> dict[str, list[Trial]]:
    """The trials of each setting: they stand one setting after another."""
    found, rest = {}, list(trials)
    for name in SETTINGS:
        count = len(proposals([settings(name)], None))
        found[name], rest = rest[:count], rest[count:]
    return found


def assemble(parts: list[Path]) -> None:
    """trials.parquet out of the parts of the settings, in their order."""
    found = [trial for part in parts for trial in merged([part])[0]]
    write_trials([t.with_changes(number=i) for i, t in enumerate(found)], HERE / "trials.parquet")


def begin(parts: list[Path]) -> None:
    """Parts that hold what trials.parquet has, so that no training is repeated."""
    known = of_settings(read_trials(HERE / "trials.parquet"))
    for part, (name, trials) in zip(parts, known.items(), strict=True):
        if not part.exists():
            file = settings(name)
            text = text_of(file)
            part.parent.mkdir(exist_ok=True)
            write_part(trials, setting_of(file, text.fingerprint), part)


if __name__ == "__main__":
    parts = [HERE / "parts" / f"{i}.parquet" for i in range(len(SETTINGS))]
    for name in SETTINGS:
        text_of(settings(name))
    if (HERE / "trials.parquet").exists():
        begin(parts)
    for part, changes in zip(parts, SETTINGS.values(), strict=True):
        command = ["table", str(HERE / "study.yaml"), "--seeds", "1", "--out", str(part), *sys.argv[1:]]
        typed(*command, *(word for change in changes for word in ("--set", change)))
    assemble(parts)
