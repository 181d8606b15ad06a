"""Stopping: whether a training goes on at a rung, by what others of the study had there and what became of them.

Efficiency is known exactly before a training begins; only quality is bought, and only quality is uncertain. Four rules:

- `front`: what the training will have at its end is foretold from what it has at the rung, by those that were trained
  to the end (a line for each trained objective). The spread around that line is the noise of what is foretold; what a
  training had at its end is as sure as the replicates of the study say. A training whose probability of being on the
  front, under that noise, is below `UNLIKELY` stops.
- `rank`: those in the best 1 / `reduction` of a rung go on, ordered by non-dominated rank over efficiency and quality
  (MO-ASHA [arXiv:2106.12639]).
- `loss`: those in the best 1 / `reduction` of a rung by the first trained objective alone go on (ASHA
  [arXiv:1810.05934]).
- `margin`: those go on that fewer than `dominators` others of equal or better efficiency beat by more than `margin` in
  the first trained objective without being worse in another.

All values here are such that smaller is better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hybrid_nas.cost import Cost
from hybrid_nas.dominance import non_dominated
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.objective import Objective
from hybrid_nas.study_file import StudyFile
from hybrid_nas.trial import Trial

UNLIKELY = 0.1
FORETOLD_BY = 6  # trainings that were seen at a rung and at their end, before `front` stops any there
REMEMBERED = 1_000  # of a rung: the latest, so that the work of one decision does not grow with the study
DRAWS = 256


@dataclass(frozen=True)
class Seen:
    """What one training had at one place: `efficiency` and `quality`, a value for each objective of the kind."""

    key: str
    efficiency: tuple[float, ...]
    quality: tuple[float, ...]


@dataclass
class Stopping:
    """What a study has seen at its rungs (numbered from 0) and at the ends of its trainings, and the rule.

    `noise` is the deviation between seeds of each trained objective at the end, where replicates have shown it.
    """

    rule: str = "front"
    reduction: float = 3.0
    dominators: int = 3
    margin: float = 0.02
    unlikely: float = UNLIKELY
    noise: tuple[float, ...] = ()
    rungs: dict[int, dict[str, Seen]] = field(default_factory=dict)
    ends: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def of(cls, trials: Iterable[Trial], file: StudyFile) -> Stopping:
        """The rule of a study, with what its finished trials had at their rungs and ends."""
        trials, search = list(trials), file.search
        names = [objective.name for objective in file.objectives if objective.trained]
        noise = [Noise.of(name, trainings(trials, name)) for name in names]
        spread = tuple(one.own_sd or one.sd or 0.0 for one in noise)
        rules = (search.stopping, search.reduction, search.dominators, search.margin)
        stopping = cls(*rules, noise=spread)
        for trial in trials:
            if trial.replicate_of is not None or trial.shared_with is not None:
                continue
            for point in trial.curve:
                scores = {"loss": point.loss, "recall": point.recall}
                seen = seen_of(trial.key, trial.cost, scores, file.objectives)
                if point.validation and seen is not None and not (trial.values and point.tokens == trial.tokens):
                    stopping.saw(trial.budget.rung(point.tokens, file.proxy.context), seen)
            stopping.trained(trial, file.objectives)
        return stopping

    def trained(self, trial: Trial, objectives: Sequence[Objective]) -> None:
        """Take in what a finished trial had at its end; nothing of one that was stopped, failed, or is a replicate."""
        seen = seen_of(trial.key, trial.cost, trial.values, objectives)
        if trial.state == "complete" and trial.replicate_of is None and seen is not None:
            self.ended(seen)

    def saw(self, rung: int, seen: Seen) -> None:
        _remember(self.rungs.setdefault(rung, {}), seen)

    def ended(self, seen: Seen) -> None:
        _remember(self.ends, seen)

    def goes_on(self, rung: int, seen: Seen) -> bool:
        """Whether the training goes on; what it has at the rung is remembered either way."""
        self.saw(rung, seen)
        others = [other for key, other in self.rungs[rung].items() if key != seen.key]
        match self.rule:
            case "front":
                return self.probability(rung, seen) >= self.unlikely
            case "rank":
                return self._better_ranked(seen, others) < max(1.0, (len(others) + 1) / self.reduction)
            case "loss":
                better = sum(other.quality[0] < seen.quality[0] for other in others)
                return better < max(1.0, (len(others) + 1) / self.reduction)
            case "margin":
                return not 0 < self.dominators <= sum(self._beats(other, seen) for other in others)
        return True

    def probability(self, rung: int, seen: Seen) -> float:
        """The probability that `seen` is on the front once it is trained to the end; 1 where too little is known."""
        lines = self._lines(rung)
        if lines is None:
            return 1.0
        known = {**self.rungs[rung], **self.ends}
        rivals = [
            other
            for key, other in known.items()
            if key != seen.key and all(a <= b for a, b in zip(other.efficiency, seen.efficiency, strict=True))
        ]
        if not rivals:
            return 1.0
        generator = np.random.default_rng(len(rivals))
        done = np.array([other.key in self.ends for other in rivals])
        beaten = np.ones((DRAWS, len(rivals)), dtype=bool)
        for q, line in enumerate(lines):
            value = line.at(seen.quality[q]) + line.spread(seen.quality[q]) * generator.standard_normal((DRAWS, 1))
            had = np.array([other.quality[q] for other in rivals])
            theirs = np.where(done, had, line.slope * (had - line.x) + line.y)
            spread = np.where(done, self.noise[q] if self.noise else 0.0, line.sd)
            beaten &= theirs + spread * generator.standard_normal((DRAWS, len(rivals))) <= value
        return float((~beaten.any(1)).mean())

    def foretold(self) -> dict[str, tuple[tuple[float, float], ...]]:
        """What trainings that were seen at a rung and never ended would have had: (value, variance) of each quality,
        by key, from the last rung that tells."""
        found: dict[str, tuple[tuple[float, float], ...]] = {}
        for rung in sorted(self.rungs, reverse=True):
            lines = self._lines(rung)
            for key, seen in self.rungs[rung].items() if lines else ():
                if key not in self.ends and key not in found:
                    pairs = zip(lines or (), seen.quality, strict=True)
                    found[key] = tuple((line.at(value), line.spread(value) ** 2) for line, value in pairs)
        return found

    def _lines(self, rung: int) -> list[Line] | None:
        """How the ends follow from the rung, a line for each quality; None before enough trainings have ended."""
        both = [(seen.quality, self.ends[key].quality) for key, seen in self.rungs[rung].items() if key in self.ends]
        if len(both) < FORETOLD_BY:
            return None
        return [Line.of([had[q] for had, _ in both], [end[q] for _, end in both]) for q in range(len(both[0][0]))]

    def _better_ranked(self, seen: Seen, others: Sequence[Seen]) -> int:
        """How many others stand in a better layer of non-dominated points."""
        points = np.array([[*other.efficiency, *other.quality] for other in (seen, *others)])
        left, better = np.arange(len(points)), 0
        while True:
            layer = non_dominated(points[left])
            if layer[0]:
                return better
            better += int(layer.sum())
            left = left[~layer]

    def _beats(self, other: Seen, seen: Seen) -> bool:
        pairs = list(zip(other.quality, seen.quality, strict=True))
        return (
            all(a <= b for a, b in zip(other.efficiency, seen.efficiency, strict=True))
            and pairs[0][0] < pairs[0][1] - self.margin
            and all(a <= b for a, b in pairs[1:])
        )


def seen_of(key: str, cost: Cost, scores: Mapping[str, float | None], objectives: Sequence[Objective]) -> Seen | None:
    """What the rules read; None where a trained objective has no score, as one that rungs do not measure."""
    efficiency: list[float] = []
    quality: list[float] = []
    for objective in objectives:
        if objective.trained:
            score = scores.get(objective.name)
        else:
            score = cost.value(objective.name) if cost.has(objective.name) else None
        if score is None:
            return None
        (quality if objective.trained else efficiency).append(objective.loss(score))
    return Seen(key, tuple(efficiency), tuple(quality))


def _remember(place: dict[str, Seen], seen: Seen) -> None:
    place[seen.key] = seen
    if len(place) > REMEMBERED:
        del place[next(iter(place))]


@dataclass(frozen=True)
class Line:
    """A least-squares line through (`x`, `y`), the means, over `n` points that spread by `sd` around it."""

    x: float
    y: float
    slope: float
    sd: float
    around: float
    n: int

    @classmethod
    def of(cls, x: Sequence[float], y: Sequence[float]) -> Line:
        n, mean_x, mean_y = len(x), math.fsum(x) / len(x), math.fsum(y) / len(y)
        around = math.fsum((a - mean_x) ** 2 for a in x)
        together = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
        slope = max(0.0, together / around) if around > 0 else 0.0
        left = math.fsum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
        return cls(mean_x, mean_y, slope, math.sqrt(left / (n - 2)), around, n)

    def at(self, x: float) -> float:
        return self.y + self.slope * (x - self.x)

    def spread(self, x: float) -> float:
        """Standard deviation of one more point at `x`."""
        leverage = (x - self.x) ** 2 / self.around if self.around > 0 else 0.0
        return self.sd * math.sqrt(1 + 1 / self.n + leverage)
