"""What is within reach of a search: the designs that its space still has, and what more seeds of them would take."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hybrid_nas.noise import proxy_id
from hybrid_nas.trial import Trial
from hybrid_nas.units import counted

SEEDS = "more seeds of its designs (`proxy.replicates`, or `hybrid-nas table --seeds`)"


@dataclass(frozen=True)
class Reach:
    """`searched` designs have a trial, in `trainings` that ran to the end; the space holds `designs`, None where that
    is not known."""

    searched: int
    trainings: int
    designs: int | None = None

    @classmethod
    def of(cls, trials: Iterable[Trial], designs: int | None = None) -> Reach:
        trials = list(trials)
        searched = len({trial.key for trial in trials if trial.replicate_of is None})
        trainings = len({(proxy_id(trial), trial.seed) for trial in trials if trial.state == "complete"})
        return cls(searched, trainings, designs)

    @property
    def left(self) -> float:
        """How many designs a search could still try."""
        return math.inf if self.designs is None else max(0, self.designs - self.searched)

    def split(self, more: int | None) -> tuple[int | None, int | None]:
        """`more` designs, where the space has so many left; if not, as many more trainings of those it has."""
        if more is None or more <= self.left:
            return more, None
        return None, math.ceil(self.trainings * more / max(1, self.searched))

    @property
    def ended(self) -> str:
        """Why no further design helps."""
        if not self.left:
            return f"all {counted(self.designs or 0, 'design')} of the space have their trial"
        return f"the space has only {counted(int(self.left), 'design')} left"
