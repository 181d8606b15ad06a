"""Search the recorded table under each stopping rule, on simulated workers: a line of results.csv a search.

python run.py [--table ../2026-11_hybrid_table] [--seeds 9] [--only RULE ...]

The rules are those of hybrid_nas.stopping, and syne-tune's (pip install syne-tune; the product does not need it).
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from simulate import Searched, Table, at_random, search, spent_until, worth_at

from hybrid_nas.stopping import Seen, Stopping

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
OBJECTIVES = {"loss, cache": ("loss", "cache_bytes"), "loss, recall, cache": ("loss", "recall", "cache_bytes")}
SHARES = (0.8, 0.9, 0.95)
BUDGETS = (0.1, 0.2, 0.3, 0.5, 1.0)
COLUMNS = ("objectives", "order", "rule", "seed", "spent", "worth", *(f"until {s}" for s in SHARES),
           *(f"at {b}" for b in BUDGETS), "seconds")  # fmt: skip
WORKERS = 4
SEEDS_OF_CHOOSERS = 2
MOST = 0.3  # of the whole table, for searches that choose what to train
RULES: dict[str, dict[str, Any]] = {
    "none": {"rule": "none"},
    "front, 0.02": {"rule": "front", "unlikely": 0.02},
    "front, 0.05": {"rule": "front", "unlikely": 0.05},
    "front, 0.1": {"rule": "front", "unlikely": 0.1},
    "front, 0.2": {"rule": "front", "unlikely": 0.2},
    "rank, 2": {"rule": "rank", "reduction": 2},
    "rank, 3": {"rule": "rank", "reduction": 3},
    "margin, 3 by 0.02": {"rule": "margin"},
    "margin, 3 by 0": {"rule": "margin", "margin": 0.0},
    "margin, 1 by 0.02": {"rule": "margin", "dominators": 1},
    "loss, 3": {"rule": "loss", "reduction": 3},
}
PEERS = ("syne-tune MOASHA, 2", "syne-tune MOASHA, 3", "syne-tune ASHA on loss, 2", "syne-tune Hyperband on loss, 2")
ORDERS = ("random", "ehvi")
WITH_EHVI = ("none", "front, 0.1", "margin, 3 by 0", "rank, 2")


class Ours:
    def __init__(self, table: Table, **settings: Any) -> None:
        self.table, self.stopping = table, Stopping(**settings)

    def _seen(self, design: int, quality: Sequence[float]) -> Seen:
        return Seen(str(design), tuple(self.table.efficiency[design]), tuple(quality))

    def goes_on(self, design: int, rung: int, tokens: int, quality: Sequence[float]) -> bool:
        return self.stopping.goes_on(rung, self._seen(design, quality))

    def ended(self, design: int, tokens: int, quality: Sequence[float]) -> None:
        self.stopping.ended(self._seen(design, quality))


class SyneTune:
    """syne-tune's schedulers, asked at every rung as its simulator asks them; rungs double, as ours do."""

    def __init__(self, table: Table, kind: str, seed: int) -> None:
        from syne_tune.backend.trial_status import Trial
        from syne_tune.config_space import choice
        from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving
        from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

        np.random.seed(seed)  # noqa: NPY002  it draws brackets from the global state
        self.table, self.trial, self.known = table, Trial, set[int]()
        self.names = [f"q{i}" for i in range(table.quality.shape[-1])]
        self.exact = [f"e{i}" for i in range(table.efficiency.shape[1])]
        name, _, factor = kind.rpartition(", ")
        common = {
            "config_space": {"design": choice(list(range(len(table.trials))))},
            "time_attr": "tokens",
            "max_t": table.tokens[-1],
            "grace_period": table.tokens[0],
            "reduction_factor": float(factor),
            "random_seed": seed,
            "brackets": 4 if "Hyperband" in name else 1,
        }
        if "MOASHA" in name:
            self.scheduler: Any = MOASHA(metrics=self.names + self.exact, **common)
        else:
            self.scheduler = AsynchronousSuccessiveHalving(metric="q0", **common)

    def goes_on(self, design: int, rung: int, tokens: int, quality: Sequence[float]) -> bool:
        import datetime

        trial = self.trial(trial_id=design, config={"design": design}, creation_time=datetime.datetime(2026, 1, 1))
        if design not in self.known:
            self.known.add(design)
            self.scheduler.on_trial_add(trial)
        result = dict(zip(self.names, quality, strict=True)) | {"tokens": tokens}
        result |= dict(zip(self.exact, self.table.efficiency[design].tolist(), strict=True))
        return str(self.scheduler.on_trial_result(trial, result)) != "STOP"

    def ended(self, design: int, tokens: int, quality: Sequence[float]) -> None: ...


def line(table: Table, source: Path, names: str, order: str, rule: str, seed: int) -> list[Any]:
    begin = time.perf_counter()
    objectives = OBJECTIVES[names]
    scheduler = SyneTune(table, rule, seed) if rule in PEERS else Ours(table, **RULES[rule])
    propose = at_random(table, seed) if order == "random" else Searched(table, source, order, seed, objectives)
    whole = table.tokens[-1] * len(table.trials)
    most = whole if order == "random" else MOST * whole
    trace = search(table, propose, scheduler, seed % len(table.seeds), WORKERS, most)
    return [
        names, order, rule, seed, f"{trace[-1][0] / whole:.4f}", f"{trace[-1][1]:.4f}",
        *(f"{spent_until(trace, share) / whole:.4f}" for share in SHARES),
        *(f"{worth_at(trace, budget * whole):.4f}" for budget in BUDGETS),
        f"{time.perf_counter() - begin:.2f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, default=HERE.parent / "2026-11_hybrid_table")
    parser.add_argument("--seeds", type=int, default=9)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    have = set()
    if RESULTS.exists():
        have = {tuple(row[:4]) for row in csv.reader(RESULTS.open())}
    else:
        RESULTS.write_text(",".join(f'"{name}"' if "," in name else name for name in COLUMNS) + "\n")
    tables = {names: Table.of(given.table / "trials.parquet", objectives) for names, objectives in OBJECTIVES.items()}
    arms = [
        (names, "random", rule, seed) for names in tables for seed in range(given.seeds) for rule in (*RULES, *PEERS)
    ]
    arms += [
        (names, "ehvi", rule, seed)
        for seed in range(min(SEEDS_OF_CHOOSERS, given.seeds))
        for names in tables
        for rule in WITH_EHVI
    ]
    for names, order, rule, seed in arms:
        if (names, order, rule, str(seed)) in have or (given.only and rule not in given.only):
            continue
        found = line(tables[names], given.table / "study.yaml", names, order, rule, seed)
        with RESULTS.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(found)
        print(*found, flush=True)


if __name__ == "__main__":
    main()
