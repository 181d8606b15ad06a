"""Train what trials.parquet lacks, setting by setting. Resumable, in slices; a GPU where there is one.

python run.py [--time-limit 9min] [--processes 4] [--at-once 7]
"""

from __future__ import annotations

import sys
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.cli import app
from hybrid_nas.data import Corpus, open_corpus
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import merged, proposals, setting_of, write_part
from hybrid_nas.trial import Trial, read_trials, write_trials

HERE = Path(__file__).parent
LARGER_STATE = ("proxy.d_state=64", "proxy.ffn_hidden=560", "proxy.params=4200000", "budget.tokens=30000000")
"""With wider FFNs the arms keep their layers at equal parameters."""
SETTINGS: dict[str, tuple[str, tuple[str, ...], float]] = {
    "state 16": ("study.yaml", (), 21.3),
    "state 64": ("study.yaml", LARGER_STATE, 18.1),
    "split": ("told_split.yaml", (), 30.0),
    "positions": ("told_positions.yaml", (), 22.8),
}
"""Setting -> its arms, what it changes there, and GPU-seconds of a training, packed: the wall clock of the slice in
which they ran, times its GPUs, over the trainings."""


def settings(name: str) -> StudyFile:
    source = HERE / SETTINGS[name][0]
    return read_study(source.read_text(), str(source), SETTINGS[name][1], HERE.resolve())


def study() -> StudyFile:
    return settings("state 16")


def budgets() -> set[Budget]:
    return {settings(name).budget for name in SETTINGS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: setting by setting, in the order of the arms."""
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


def assemble(parts: dict[str, Path]) -> None:
    """trials.parquet out of the parts of the settings, in their order."""
    found: list[Trial] = []
    for name, part in parts.items():
        order = {proposal.key: place for place, proposal in enumerate(proposals([settings(name)], None))}
        found += sorted(merged([part])[0], key=lambda trial: order[trial.key])
    write_trials([t.with_changes(number=i) for i, t in enumerate(found)], HERE / "trials.parquet")


def begin(parts: dict[str, Path]) -> None:
    """Parts that hold what trials.parquet has, so that no training is repeated."""
    known = of_settings(read_trials(HERE / "trials.parquet"))
    for name, part in parts.items():
        if not part.exists():
            file = settings(name)
            text = open_corpus(Corpus.from_dict(dict(file.data or {})))
            part.parent.mkdir(exist_ok=True)
            write_part(known[name], setting_of(file, text.fingerprint), part)


if __name__ == "__main__":
    parts = {name: HERE / "parts" / f"{name.replace(' ', '_')}.parquet" for name in SETTINGS}
    if (HERE / "trials.parquet").exists():
        begin(parts)
    for name, part in parts.items():
        source, changes, _ = SETTINGS[name]
        command = ["table", str(HERE / source), "--seeds", "1", "--out", str(part), *sys.argv[1:]]
        app([*command, *(word for change in changes for word in ("--set", change))], standalone_mode=False)
    assemble(parts)
