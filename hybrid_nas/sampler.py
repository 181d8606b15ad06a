"""What to try next: our own choice by expected improvement, or Optuna's samplers, behind one wrapper that never
proposes a design twice, nor a refused one.

Each proposal depends on the seed, the trial's number and the finished trials alone, not on the process's past, so a
search that was stopped and resumed proposes what an unbroken one would have.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hybrid_nas.acquisition import Known, next_design
from hybrid_nas.census import Census
from hybrid_nas.design import Design, Refused
from hybrid_nas.proposal import Proposal
from hybrid_nas.questions import Option
from hybrid_nas.stopping import Stopping
from hybrid_nas.study_file import StudyFile
from hybrid_nas.surrogate import MOST, Spellings, doubt
from hybrid_nas.trial import Trial

ATTEMPTS = 24
STARTUP = 8
SPREAD = 6
LEAST = 4
ALIKE = 0.03
CANDIDATES = 1_000
DRAWN = 200


def make_sampler(kind: str, seed: int) -> BaseSampler:
    """Optuna's sampler of that kind. `tpe` is multivariate, grouped (for conditional choices) and lies about running
    trials; of those that cost milliseconds it found the most hypervolume on a mixed, conditional space."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match kind:
            case "tpe":
                return optuna.samplers.TPESampler(
                    seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=STARTUP
                )
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=16)
            case "gp":
                return optuna.samplers.GPSampler(
                    seed=seed, deterministic_objective=False, n_startup_trials=STARTUP, warn_independent_sampling=False
                )
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


class UnseenDesigns(BaseSampler):
    """Asks an inner sampler until it proposes a proposal that no trial holds yet.

    The first trials are the seeds, then the ends of each efficiency axis, so that every front has both. `grid` takes
    the proposals in the space's order. `ehvi` takes the one from which the front is expected to gain most, once
    `LEAST` trainings have ended and `SPREAD` designs were begun; until then one of those that the designs begun will
    tell least of (within `ALIKE` of the least). After 24 proposals of known or refused designs one of the census is
    drawn at random. `holders` has the number of the trial that holds each key; `trials`
    are those that have finished.
    """

    def __init__(
        self,
        file: StudyFile,
        census: Census,
        holders: Mapping[str, int],
        trials: Mapping[int, Trial],
        seeds: Sequence[Proposal] = (),
    ) -> None:
        self.file = file
        self.census = census
        self.holders = holders
        self.trials = trials
        self.refused: Counter[str] = Counter()
        every = census.proposals.values() if file.search.sampler == "grid" else census.ends(file)
        self._first = deque([*seeds, *every])
        self._spelled: dict[str, dict[str, Option]] = {}
        self._answers: dict[str, Option] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._answers = self._propose(study, trial)
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        assert isinstance(param_distribution, CategoricalDistribution)
        return self._answers.get(param_name, param_distribution.choices[0])

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        make_sampler(self.file.search.sampler, 0).after_trial(study, trial, state, values)

    def _propose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Option]:
        space = self.file.space
        while self._first and not self._free(self._first[0].key, trial.number):
            self._first.popleft()
        if self._first:
            return space.answers(self._first[0].design)
        rng = random.Random(self._seed(trial.number, ATTEMPTS))
        if self.file.search.sampler == "ehvi":
            return self._chosen(trial.number, rng)
        for attempt in range(ATTEMPTS):
            answers, design = self._inner(study, trial, attempt)
            try:
                proposal = Proposal.of(design, self.file)
            except Refused as reason:
                self.refused[str(reason)] += 1
                continue
            if self._free(proposal.key, trial.number):
                return answers
        unseen = [proposal for key, proposal in self.census.proposals.items() if self._free(key, trial.number)]
        unseen = unseen or self._drawn(1, trial.number, rng)
        return space.answers(rng.choice(unseen).design)

    def _free(self, key: str, number: int) -> bool:
        """Whether no other trial holds that key."""
        return self.holders.get(key, number) == number

    def _drawn(self, count: int, number: int, rng: random.Random) -> list[Proposal]:
        """Up to `count` new designs drawn at random, at least one: a census of a very large space is a sample."""
        found: dict[str, Proposal] = {}
        tries = 0
        while not found or (len(found) < count and tries < 4 * count):
            tries += 1
            try:
                proposal = Proposal.of(self.file.space.draw(rng), self.file)
            except Refused:
                continue
            if self._free(proposal.key, number):
                found[proposal.key] = proposal
        return list(found.values())

    def _left(self, number: int, rng: random.Random) -> list[Proposal]:
        """Proposals to choose from: up to `CANDIDATES` of the census that are free, and some that are drawn anew where
        the census is a sample."""
        free = [proposal for key, proposal in self.census.proposals.items() if self._free(key, number)]
        if len(free) > CANDIDATES:
            free = rng.sample(free, CANDIDATES)
        return free if free and self.census.complete else free + self._drawn(DRAWN, number, rng)

    def _chosen(self, number: int, rng: random.Random) -> dict[str, Option]:
        """The answers that spell the design with the largest expected improvement, or one of which little is known."""
        free = self._left(number, rng)
        latest = [self.trials[at] for at in sorted(self.trials)[-MOST:]]
        cost = {p.key: p.cost for p in (*self.census.proposals.values(), *free)} | {t.key: t.cost for t in latest}
        for key, design in [(p.key, p.design) for p in free] + [(t.key, t.design) for t in latest]:
            self._spell(key, design)
        running = []
        for key, holder in self.holders.items():
            if holder not in self.trials and holder != number and key in self.census.proposals:
                running.append(key)
                self._spell(key, self.census.proposals[key].design)
        ahead = [p.key for p in free]
        stopping = Stopping.of(latest, self.file)
        told = {key: seen.quality for key, seen in stopping.ends.items()}
        if len(told) < LEAST or len(self.holders) < SPREAD:
            begun = [*dict.fromkeys(t.key for t in latest), *running]
            spellings = Spellings.of([self._spelled[key] for key in (*begun, *ahead)])
            left = doubt(spellings, range(len(begun)), range(len(begun), len(begun) + len(ahead)))
            return self._spelled[
                rng.choice([key for key, d in zip(ahead, left, strict=True) if d > left.max() - ALIKE])
            ]
        foretold = stopping.foretold()
        rows = [*told, *foretold]
        quality = [*told.values(), *(tuple(value for value, _ in pairs) for pairs in foretold.values())]
        variance = [*([0.0] * len(q) for q in told.values()), *([v for _, v in pairs] for pairs in foretold.values())]
        keys = [*rows, *running, *ahead]
        exact = [objective for objective in self.file.objectives if not objective.trained]
        efficiency = np.array([[o.loss(cost[key].value(o.name)) for o in exact] for key in keys])
        begins = len(rows) + len(running)
        known = Known(range(len(rows)), np.array(quality), np.array(variance), range(len(rows), begins))
        spellings = Spellings.of([self._spelled[key] for key in keys])
        return self._spelled[keys[next_design(spellings, efficiency, known, range(begins, len(keys)))]]

    def _spell(self, key: str, design: Design) -> None:
        if key not in self._spelled:
            self._spelled[key] = self.file.space.answers(design)

    def _inner(self, study: optuna.Study, trial: FrozenTrial, attempt: int) -> tuple[dict[str, Option], Design]:
        """One full set of answers from the inner sampler, and the design that they spell."""
        inner = make_sampler(self.file.search.sampler, self._seed(trial.number, attempt))
        relative = inner.sample_relative(study, trial, inner.infer_relative_search_space(study, trial))
        answers: dict[str, Option] = {}

        def choose(name: str, options: tuple[Option, ...]) -> Option:
            answer = relative.get(name)
            if name not in relative:
                answer = inner.sample_independent(study, trial, name, CategoricalDistribution(options))
            answers[name] = answer  # type: ignore[assignment]
            return answers[name]

        design = self.file.space.build(choose)
        return answers, design

    def _seed(self, number: int, attempt: int) -> int:
        return int(np.random.SeedSequence([self.file.search.seed, number, attempt]).generate_state(1)[0])
