"""Search the recorded table with each sampler, without stopping, on simulated workers: a line of results.csv a search.

python run.py [--table ../2026-11_hybrid_table] [--seeds 20] [--only SAMPLER ...]

`ehvi`, `tpe`, `nsga2`, `gp` and `random` run as the product runs them, with its first trials (the ends of the cost
axis), and so do the variants of TPE. Those marked bare are without them: random order, and syne-tune's searchers on the
space's questions (pip install syne-tune botorch; the product does not need them).
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import optuna

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "2026-11_stopping"))

from simulate import Array, Searched, Table, at_random, search, spent_until, worth_at  # noqa: E402

from hybrid_nas.sampler import STARTUP  # noqa: E402

RESULTS = HERE / "results.csv"
OBJECTIVES = {"loss, cache": ("loss", "cache_bytes"), "loss, recall, cache": ("loss", "recall", "cache_bytes")}
SHARES = (0.8, 0.9, 0.95)
BUDGETS = (0.05, 0.1, 0.15, 0.2, 0.3)
COLUMNS = ("objectives", "sampler", "seed", *(f"until {s}" for s in SHARES), *(f"at {b}" for b in BUDGETS), "seconds")
WORKERS = 4
MOST = 0.3
PRODUCT = ("random", "ehvi", "tpe", "nsga2", "gp")
BARE = "random, bare"
PEERS = ("syne-tune MO-REA, bare", "regularised evolution on loss, bare", "syne-tune EHVI, bare")
ATTEMPTS = 24
DRAWS = 32  # by which syne-tune's EHVI knows an improvement, for its own 128: less than half the time a suggestion
CHUNK = 20  # candidates of syne-tune's EHVI weighed at a time
VARIANTS: dict[str, dict[str, Any]] = {
    "tpe, a choice at a time": {"multivariate": False, "group": False},
    "tpe, without a lie about running trials": {"constant_liar": False},
}
TPE = {"multivariate": True, "group": True, "constant_liar": True, "n_startup_trials": STARTUP}


class SyneTune:
    """A searcher of syne-tune on the space's questions; a design that was begun is asked for again, as the product
    asks Optuna's samplers again."""

    def __init__(self, table: Table, source: Path, name: str, seed: int, objectives: Sequence[str]) -> None:
        from simulate import study_of
        from syne_tune.config_space import choice

        self.table, self.name, self.rng = table, name, random.Random(seed)
        self.space = study_of(source, objectives, ()).space
        options: dict[str, dict[Any, None]] = {}
        for trial in table.trials:
            for question, (_, answers) in self.space.choices(trial.design).items():
                options.setdefault(question, {}).update(dict.fromkeys(answers))
        config = {question: choice(list(answers)) for question, answers in options.items()}
        self.row = {trial.design: i for i, trial in enumerate(table.trials)}
        self.asked: dict[int, tuple[int, dict[str, Any]]] = {}
        self.count = 0  # of the suggestions that count: syne-tune numbers them so too
        self.searcher = _searcher(name, config, seed)

    def __call__(self, begun: list[int], ended: dict[int, Array], stopped: dict[int, int]) -> int | None:
        for design, quality in ended.items():
            if design in self.asked:
                number, config = self.asked.pop(design)
                self._tell(number, config, design, quality)
        for _ in range(ATTEMPTS):
            config = self.searcher.suggest()
            number, self.count = self.count, self.count + 1
            design = self.row[self.space.build(lambda name, options, config=config: config[name])]
            if design not in begun:
                self.asked[design] = number, config
                return design
            if "EHVI" not in self.name:
                continue
            if design in ended:  # what is known costs nothing to tell again
                self._tell(number, config, design, ended[design])
            else:  # a design in training a second time: each suggestion in flight doubles the work of the next
                self.searcher.pending_trials.discard(number)
                del self.searcher.trial_configs[number]
                self.count = number
        left = [i for i in range(len(self.table.trials)) if i not in begun]
        return self.rng.choice(left) if left else None

    def _tell(self, number: int, config: dict[str, Any], design: int, quality: Array) -> None:
        if "on loss" in self.name:
            self.searcher.on_trial_complete(number, config, float(quality[0]))
            return
        values = np.concatenate([quality, self.table.efficiency[design]])
        if "EHVI" in self.name:  # its reference point is fixed at -2: the table's is put there, its best at -3
            span = self.table.reference - self.table.truth.min(0)
            values = (values - self.table.reference) / span - 2
        self.searcher.on_trial_complete(number, config, values.tolist())


def _searcher(name: str, config: dict[str, Any], seed: int) -> Any:
    if "MO-REA" in name:
        from syne_tune.optimizer.schedulers.multiobjective.multi_objective_regularized_evolution import (
            MultiObjectiveRegularizedEvolution,
        )

        return MultiObjectiveRegularizedEvolution(config, population_size=10, sample_size=5, random_seed=seed)
    if "EHVI" in name:
        return _ehvi(config, seed)
    from syne_tune.optimizer.schedulers.searchers.regularized_evolution import RegularizedEvolution

    return RegularizedEvolution(config, population_size=10, sample_size=5, random_seed=seed)


def _ehvi(config: dict[str, Any], seed: int) -> Any:
    """As syne-tune makes it, in a tenth of the time: the same improvement from fewer boxes, few candidates at a time,
    fewer draws, and the best of 200 candidates instead of a climb by gradient."""
    import torch
    from botorch.acquisition.multi_objective import logei
    from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning
    from syne_tune.optimizer.schedulers.multiobjective import expected_hyper_volume_improvement as module

    class InPieces(logei.qLogExpectedHypervolumeImprovement):  # type: ignore[misc, unused-ignore]
        def forward(self, X: Any) -> Any:
            with torch.no_grad():
                return torch.cat([super(InPieces, self).forward(some) for some in X.split(CHUNK)])

    logei._load_attempted = True  # botorch's compiled kernel refuses syne-tune's mix of single and double precision
    module.NondominatedPartitioning = FastNondominatedPartitioning
    module.qLogExpectedHypervolumeImprovement = InPieces
    return module.ExpectedHyperVolumeImprovement(
        config, num_init_random=6, optimization_strategy="random", mc_samples=DRAWS, random_seed=seed
    )


def tpe(variant: str) -> Callable[[str, int], optuna.samplers.BaseSampler]:
    return lambda kind, seed: optuna.samplers.TPESampler(seed=seed, **(TPE | VARIANTS[variant]))


def line(table: Table, source: Path, names: str, sampler: str, seed: int) -> list[Any]:
    begin = time.perf_counter()
    propose: Any
    if sampler == BARE:
        propose = at_random(table, seed)
    elif sampler in PEERS:
        propose = SyneTune(table, source, sampler, seed, OBJECTIVES[names])
    else:
        propose = Searched(table, source, sampler.split(",")[0], seed, OBJECTIVES[names])
    return measured(table, propose, names, sampler, seed, begin)


def measured(table: Table, propose: Any, names: str, sampler: str, seed: int, begin: float) -> list[Any]:
    whole = table.tokens[-1] * len(table.trials)
    most = whole if sampler in (BARE, "random") else MOST * whole
    with patch("hybrid_nas.sampler.make_sampler", tpe(sampler)) if sampler in VARIANTS else nullcontext():
        trace = search(table, propose, None, seed % len(table.seeds), WORKERS, most)
    return [
        names, sampler, seed,
        *(f"{spent_until(trace, share) / whole:.4f}" for share in SHARES),
        *(f"{worth_at(trace, budget * whole):.4f}" for budget in BUDGETS),
        f"{time.perf_counter() - begin:.2f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=HERE.parent / "2026-11_hybrid_table")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    have = set()
    if RESULTS.exists():
        have = {tuple(row[:3]) for row in csv.reader(RESULTS.open())}
    else:
        with RESULTS.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(COLUMNS)
    tables = {names: Table.of(given.table / "trials.parquet", objectives) for names, objectives in OBJECTIVES.items()}
    for seed in range(given.seeds):
        for sampler in (BARE, *PRODUCT, *VARIANTS, *PEERS):
            for names, table in tables.items():
                if (names, sampler, str(seed)) in have or (given.only and sampler not in given.only):
                    continue
                np.random.seed(seed)  # noqa: NPY002  syne-tune draws from the global state
                found = line(table, given.table / "study.yaml", names, sampler, seed)
                with RESULTS.open("a", newline="") as file:
                    csv.writer(file, lineterminator="\n").writerow(found)
                print(*found, flush=True)


if __name__ == "__main__":
    main()
