"""A recorded table of learning curves, and a search on it by simulated workers: nothing is trained. The studies of
stopping rules and of samplers both use it.

Workers are asynchronous: a training's time is its tokens times the FLOPs of one at the proxy scale. What a search has
at any moment is the front of the designs that it has trained to the end, by the values it saw (one seed); its worth is
the hypervolume of those designs by their means over all seeds of the table.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from ruamel.yaml import YAML

from hybrid_nas.census import Census
from hybrid_nas.cost import cost
from hybrid_nas.dominance import hypervolume, non_dominated
from hybrid_nas.objective import Objective
from hybrid_nas.proposal import Proposal
from hybrid_nas.study import Asked, Study
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.trial import Trial, read_trials

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """`quality` (designs, seeds, rungs and the end, trained objectives) and `efficiency` (designs, others), smaller
    better; `tokens` at the rungs and the end; `speed`, relative time of one token."""

    trials: tuple[Trial, ...]
    rows: dict[tuple[int, int], Trial]
    seeds: tuple[int, ...]
    tokens: tuple[int, ...]
    quality: Array
    efficiency: Array
    speed: Array
    reference: Array
    best: float

    @classmethod
    def of(cls, path: Path, names: Sequence[str], keep: Callable[[Trial], bool] = lambda trial: True) -> Table:
        """Designs that were trained to the end at every seed, at the rungs that all have."""
        objectives = [Objective.named(name) for name in names]
        trained = [o for o in objectives if o.trained]
        known = [o for o in objectives if not o.trained]
        rows: dict[str, dict[int, Trial]] = {}
        for trial in read_trials(path):
            if trial.state == "complete" and keep(trial):
                rows.setdefault(trial.key, {})[trial.seed] = trial
        seeds = sorted(set.intersection(*[set(by_seed) for by_seed in rows.values()]))
        if not seeds:
            count = {seed: sum(seed in by_seed for by_seed in rows.values()) for r in rows.values() for seed in r}
            seeds = sorted(seed for seed, n in count.items() if n >= 0.9 * max(count.values()))
            rows = {key: by_seed for key, by_seed in rows.items() if set(seeds) <= set(by_seed)}
        first = [by_seed[seeds[0]] for by_seed in rows.values()]
        marks = [[p for p in trial.curve if p.validation] for trial in first]
        tokens = tuple(p.tokens for p in marks[0])

        def values(trial: Trial) -> list[list[float]]:
            points = [p for p in trial.curve if p.validation]
            out = []
            for at, point in enumerate(points):
                last = at == len(points) - 1
                had = {"loss": point.loss, "recall": point.recall}
                row = [trial.values[o.name] if last else had[o.name] for o in trained]
                out.append([o.loss(float(v)) for o, v in zip(trained, row, strict=True)])  # type: ignore[arg-type]
            return out

        quality = np.array([[values(by_seed[seed]) for seed in seeds] for by_seed in rows.values()])
        efficiency = np.array([[o.loss(float(getattr(t.cost, o.name))) for o in known] for t in first])
        efficiency = np.log2(efficiency) if (efficiency > 0).all() else efficiency
        flops = np.array([cost(t.proxy, 256).train_flops_per_token for t in first])
        truth = np.concatenate([quality[:, :, -1].mean(1), efficiency], axis=1)
        low, high = truth.min(0), truth.max(0)
        reference = high + 0.1 * (high - low)
        best = hypervolume(truth[non_dominated(truth)], reference)
        cells = {(i, j): by[seed] for i, by in enumerate(rows.values()) for j, seed in enumerate(seeds)}
        return cls(
            tuple(first), cells, tuple(seeds), tokens, quality, efficiency, flops / flops.mean(), reference, best
        )

    @property
    def truth(self) -> Array:
        return np.concatenate([self.quality[:, :, -1].mean(1), self.efficiency], axis=1)

    def worth(self, done: Sequence[int], seed: int) -> float:
        """Share of the best hypervolume that the designs `done` give: those on the front that one seed shows."""
        if not len(done):
            return 0.0
        rows = np.asarray(done)
        seen = np.concatenate([self.quality[rows, seed, -1], self.efficiency[rows]], axis=1)
        return hypervolume(self.truth[rows[non_dominated(seen)]], self.reference) / self.best


class Scheduler(Protocol):
    """What decides at a rung."""

    def goes_on(self, design: int, rung: int, tokens: int, quality: Sequence[float]) -> bool: ...
    def ended(self, design: int, tokens: int, quality: Sequence[float]) -> None: ...


Propose = Callable[[list[int], dict[int, Array], dict[int, int]], int | None]
"""What to train next, from the designs begun (in order), the quality of those that ended, and the rungs at which
others were stopped."""


def search(
    table: Table, propose: Propose, scheduler: Scheduler | None, seed: int, workers: int, most: float
) -> list[tuple[int, float]]:
    """(tokens spent, worth) after each training that ended, until `most` tokens are spent or no design is left.

    `seed` is the column of the table that the search sees.
    """
    running: list[tuple[float, int, int]] = []  # end of the segment, design, rung
    begun: list[int] = []
    ended: dict[int, Array] = {}
    stopped: dict[int, int] = {}
    spent, trace, now = 0, [(0, 0.0)], 0.0
    edges = (0, *table.tokens)

    def advance(design: int, rung: int) -> None:
        nonlocal spent
        tokens = edges[rung + 1] - edges[rung]
        spent += tokens
        heapq.heappush(running, (now + tokens * table.speed[design], design, rung))

    def fill() -> None:
        while len(running) < workers and spent < most:
            design = propose(begun, ended, stopped)
            if design is None:
                return
            begun.append(design)
            advance(design, 0)

    fill()
    while running:
        now, design, rung = heapq.heappop(running)
        quality = table.quality[design, seed, rung]
        if rung == len(table.tokens) - 1:
            ended[design] = quality
            if scheduler is not None:
                scheduler.ended(design, edges[rung + 1], quality.tolist())
            trace.append((spent, table.worth(list(ended), seed)))
        elif scheduler is None or scheduler.goes_on(design, rung, edges[rung + 1], quality.tolist()):
            advance(design, rung + 1)
        else:
            stopped[design] = rung
        fill()
    return trace


def at_random(table: Table, seed: int) -> Propose:
    """Every design once, in an order drawn from `seed`."""
    order = np.random.default_rng(seed).permutation(len(table.trials)).tolist()
    return lambda begun, ended, stopped: order[len(begun)] if len(begun) < len(order) else None


class Searched:
    """A sampler of the product as it runs: `Study.ask` and `Study.tell` on a storage in memory."""

    def __init__(self, table: Table, source: Path, sampler: str, seed: int, objectives: Sequence[str]) -> None:
        file = study_of(source, objectives, (f"search.sampler={sampler}", f"search.seed={seed}"))
        file = replace(file, budget=table.trials[0].budget)
        proposals = {t.key: Proposal(t.design, t.proxy, t.target, t.cost) for t in table.trials}
        census = Census(proposals, Counter(), len(proposals), True)
        self.study = Study(file, census, optuna.storages.InMemoryStorage())
        self.table, self.seed = table, seed % len(table.seeds)
        self.row = {trial.key: i for i, trial in enumerate(table.trials)}
        self.asked: dict[int, Asked] = {}

    def __call__(self, begun: list[int], ended: dict[int, Array], stopped: dict[int, int]) -> int | None:
        for design in [*ended, *stopped]:
            if design in self.asked:
                self._tell(self.asked.pop(design), design, stopped.get(design))
        if self.study.exhausted():
            return None
        asked = self.study.ask()
        design = self.row[asked.proposal.key]
        self.asked[design] = asked
        return design

    def _tell(self, asked: Asked, design: int, rung: int | None) -> None:
        trial = self.table.rows[design, self.seed].with_changes(number=asked.number, shared_with=None)
        if rung is not None:
            tokens = self.table.tokens[rung]
            curve = tuple(point for point in trial.curve if point.tokens <= tokens)
            trial = trial.with_changes(state="stopped", values={}, curve=curve, tokens=tokens)
        self.study.tell(asked, trial)


def study_of(source: Path, objectives: Sequence[str], settings: Sequence[str]) -> StudyFile:
    """The study file of the recorded table, as a search of its space."""
    recorded = YAML(typ="safe", pure=True).load(source.read_text())
    proxy = [f"proxy.{name}={value}" for name, value in recorded["proxy"].items()]
    lists = [f"{name}=[{', '.join(map(str, value))}]" for name, value in recorded.items()
             if isinstance(value, list) and name != "objectives"]  # fmt: skip
    wanted = (f"family={recorded['family']}", *lists, *proxy, f"objectives=[{', '.join(objectives)}]", *settings)
    return read_study("name: recorded\n", str(source), wanted)


def spent_until(trace: Sequence[tuple[int, float]], share: float) -> float:
    """Tokens spent until the worth was `share` of the table's best; infinite if it never was."""
    return next((tokens for tokens, worth in trace if worth >= share), float("inf"))


def worth_at(trace: Sequence[tuple[int, float]], tokens: float) -> float:
    return max((worth for spent, worth in trace if spent <= tokens), default=0.0)
