"""Studies whose arms are trained at several settings: which trial is of which setting, and training what lacks.

Trials are told apart by what they are (budget, design, proxy), not by their place, so that a study may have part of
them and grow by seeds. What trials.parquet has is never trained again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from paper_study import text_of, typed

from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.table_file import merged, proposals, setting_of, write_part
from hybrid_nas.trial import Trial, read_trials, write_trials


class Setting(NamedTuple):
    """What it changes in the file of its arms, and how many seeds."""

    changes: tuple[str, ...] = ()
    arms: str = "study.yaml"
    seeds: int = 1


class Grown(NamedTuple):
    """A study's folder and its settings, which share no model at one budget."""

    folder: Path
    settings: Mapping[str, Setting]

    def study(self, name: str) -> StudyFile:
        source, changes = self.folder / self.settings[name].arms, self.settings[name].changes
        return read_study(source.read_text(), str(source), changes, self.folder.resolve())

    def of_setting(self, name: str) -> list[tuple[Proposal, int]]:
        """(proposal, seed), seed by seed in the order of the arms."""
        every = proposals([self.study(name)], None)
        return [(proposal, seed) for seed in range(self.settings[name].seeds) for proposal in every]

    def jobs(self) -> list[tuple[int, Proposal, int]]:
        """(number, proposal, seed) of every trial: setting by setting."""
        found = [pair for name in self.settings for pair in self.of_setting(name)]
        return [(number, proposal, seed) for number, (proposal, seed) in enumerate(found)]

    def of_settings(self, trials: Sequence[Trial]) -> dict[str, list[Trial]]:
        """The trials of each setting, in their order."""
        where = {}
        for name in self.settings:
            file = self.study(name)
            where |= {(file.budget, proposal.key, proposal.proxy): name for proposal in proposals([file], None)}
        found: dict[str, list[Trial]] = {name: [] for name in self.settings}
        for trial in trials:
            found[where[trial.budget, trial.key, trial.proxy]].append(trial)
        return found

    def train(self, options: Sequence[str]) -> None:
        """What is missing of every setting, into `parts` of the folder, and trials.parquet out of them."""
        parts = {name: self.folder / "parts" / f"{i}.parquet" for i, name in enumerate(self.settings)}
        for name in self.settings:
            text_of(self.study(name))
        if (self.folder / "trials.parquet").exists():
            self.begin(parts)
        for name, part in parts.items():
            arms, seeds = str(self.folder / self.settings[name].arms), str(self.settings[name].seeds)
            changes = [word for change in self.settings[name].changes for word in ("--set", change)]
            command = ["table", arms, "--seeds", seeds, "--seed-by-seed", "--out", str(part), *changes]
            typed(*command, *options)
        self.assemble(parts)

    def begin(self, parts: Mapping[str, Path]) -> None:
        """Parts that hold what trials.parquet has."""
        known = self.of_settings(read_trials(self.folder / "trials.parquet"))
        for name, part in parts.items():
            if not part.exists() and known[name]:
                part.parent.mkdir(exist_ok=True)
                write_part(known[name], setting_of(self.study(name), text_of(self.study(name)).fingerprint), part)

    def assemble(self, parts: Mapping[str, Path]) -> None:
        """trials.parquet out of the parts, in the order of the jobs."""
        found = self.of_settings([trial for part in parts.values() for trial in merged([part])[0]])
        numbered, first = list[Trial](), 0
        for name, trials in found.items():
            order = [(proposal.key, seed) for proposal, seed in self.of_setting(name)]
            numbered += [t.with_changes(number=first + order.index((t.key, t.seed))) for t in trials]
            first += len(order)
        write_trials(sorted(numbered, key=lambda t: t.number), self.folder / "trials.parquet")
