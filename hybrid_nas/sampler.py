"""What to try next: Optuna's samplers behind one wrapper that never proposes a design twice, nor a refused one.

Each proposal depends on the seed, the trial's number and the finished trials alone, not on the process's past, so a
search that was stopped and resumed proposes what an unbroken one would have.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hybrid_nas.census import Census
from hybrid_nas.design import Design, Refused
from hybrid_nas.proposal import Proposal
from hybrid_nas.questions import Option
from hybrid_nas.study_file import StudyFile

ATTEMPTS = 24
STARTUP = 8


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
                return optuna.samplers.GPSampler(seed=seed, deterministic_objective=False, n_startup_trials=STARTUP)
            case _:
                return optuna.samplers.RandomSampler(seed=seed)


class UnseenDesigns(BaseSampler):
    """Asks an inner sampler until it proposes a proposal that no trial holds yet.

    The first trials are the seeds, then the ends of each efficiency axis, so that every front has both. `grid` takes
    the proposals in the space's order. After 24 proposals of known or refused designs one of the census is drawn at
    random.
    """

    def __init__(
        self, file: StudyFile, census: Census, known: Callable[[FrozenTrial], set[str]], seeds: Sequence[Proposal] = ()
    ) -> None:
        self.file = file
        self.census = census
        self.known = known
        self.refused: Counter[str] = Counter()
        self._seeds = tuple(seeds)
        self._anchors = [*seeds, *census.ends(file)]
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
        known = self.known(trial)
        space = self.file.space
        every = self.census.proposals.values() if self.file.search.sampler == "grid" else ()
        first = (*self._seeds, *every) if every else self._anchors
        for proposal in first:
            if proposal.key not in known:
                return space.answers(proposal.design)
        for attempt in range(ATTEMPTS):
            answers, design = self._inner(study, trial, attempt)
            try:
                proposal = Proposal.of(design, self.file)
            except Refused as reason:
                self.refused[str(reason)] += 1
                continue
            if proposal.key not in known:
                return answers
        rng = random.Random(self._seed(trial.number, ATTEMPTS))
        unseen = [proposal for key, proposal in self.census.proposals.items() if key not in known]
        while not unseen:  # the census of a very large space is a sample: draw on until a new design comes
            try:
                proposal = Proposal.of(space.draw(rng), self.file)
            except Refused:
                continue
            if proposal.key not in known:
                unseen = [proposal]
        return space.answers(rng.choice(unseen).design)

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
