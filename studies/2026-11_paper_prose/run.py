"""Train what trials.parquet lacks, setting by setting. Resumable, in slices; a GPU where there is one.

python run.py [--time-limit 9min] [--processes 4] [--at-once 7]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hybrid_nas.budget import Budget
from hybrid_nas.cli import app
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import merged, proposals, setting_of, write_part
from hybrid_nas.trial import Trial, read_trials, write_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from paper_study import text_of  # noqa: E402

LARGER_STATE = ("proxy.d_state=64", "proxy.ffn_hidden=560", "proxy.params=4200000", "budget.tokens=30000000")
"""With wider FFNs the arms keep their layers at equal parameters."""


class Setting(NamedTuple):
    """The file of its arms, how many seeds, GPU-seconds of a training, packed (the wall clock of the slice in which
    they ran, times its GPUs, over the trainings), and what it changes."""

    arms: str
    seeds: int
    gpu_seconds: float
    changes: tuple[str, ...] = ()


SETTINGS = {
    "state 16": Setting("study.yaml", 1, 21.3),
    "state 64": Setting("study.yaml", 1, 18.1, LARGER_STATE),
    "split": Setting("told_split.yaml", 1, 30.0),
    "positions": Setting("told_positions.yaml", 1, 22.8),
}


def settings(name: str) -> StudyFile:
    source = HERE / SETTINGS[name].arms
    return read_study(source.read_text(), str(source), SETTINGS[name].changes, HERE.resolve())


def study() -> StudyFile:
    return settings("state 16")


def budgets() -> set[Budget]:
    return {settings(name).budget for name in SETTINGS}


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial: setting by setting, seed by seed, in the order of the arms."""
    del file, seeds
    found = [(proposal, seed) for name in SETTINGS for proposal, seed in of_setting(name)]
    return [(number, proposal, seed) for number, (proposal, seed) in enumerate(found)]


def of_setting(name: str) -> list[tuple[Proposal, int]]:
    every = proposals([settings(name)], None)
    return [(proposal, seed) for seed in range(SETTINGS[name].seeds) for proposal in every]


def of_settings(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trials of each setting, by budget, design and proxy; the settings share no model."""
    where = {
        (settings(name).budget, proposal.key, proposal.proxy): name
        for name in SETTINGS
        for proposal, _ in of_setting(name)
    }
    found: dict[str, list[Trial]] = {name: [] for name in SETTINGS}
    for trial in trials:
        found[where[trial.budget, trial.key, trial.proxy]].append(trial)
    return found


def assemble(parts: dict[str, Path]) -> None:
    """trials.parquet out of the parts of the settings, in the order of the jobs."""
    place = {(p.key, p.proxy, seed): number for number, p, seed in jobs(study(), 0)}
    found = [trial for part in parts.values() for trial in merged([part])[0]]
    numbered = [t.with_changes(number=place[t.key, t.proxy, t.seed]) for t in found]
    write_trials(sorted(numbered, key=lambda t: t.number), HERE / "trials.parquet")


def begin(parts: dict[str, Path]) -> None:
    """Parts that hold what trials.parquet has, so that no training is repeated."""
    known = of_settings(read_trials(HERE / "trials.parquet"))
    for name, part in parts.items():
        if not part.exists() and known[name]:
            file = settings(name)
            text = text_of(file)
            part.parent.mkdir(exist_ok=True)
            write_part(known[name], setting_of(file, text.fingerprint), part)


if __name__ == "__main__":
    parts = {name: HERE / "parts" / f"{name.replace(' ', '_')}.parquet" for name in SETTINGS}
    if (HERE / "trials.parquet").exists():
        begin(parts)
    for name, part in parts.items():
        text_of(settings(name))
        its = SETTINGS[name]
        command = ["table", str(HERE / its.arms), "--seeds", str(its.seeds), "--seed-by-seed", "--out", str(part)]
        changes = [word for change in its.changes for word in ("--set", change)]
        app([*command, *changes, *sys.argv[1:]], standalone_mode=False)
    assemble(parts)
