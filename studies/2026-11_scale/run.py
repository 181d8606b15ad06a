"""What a search of thousands of trials costs beside its trainings: the loop on workers that train nothing.

python run.py --trials 1000 3000 10000 [--storage journal] [--sampler random] [--stopping none]   lines of results.csv
python run.py --asks 1000 3000 10000   the time of one ask of each sampler, lines of asks.csv

A worker's answer is made up from its job: a loss that falls towards a value which the design's id decides.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.csv"
ASKS = HERE / "asks.csv"
COLUMNS = ("what", "trials", "storage", "sampler", "stopping", "workers", "value", "unit")


class Stub:
    """Workers that answer at once; every job reports at each rung of its budget and ends unless it is stopped."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.jobs: dict[int, dict[str, Any]] = {}
        self.go_on: dict[int, bool] = {}

    @property
    def free(self) -> int:
        return self.size - len(self.jobs)

    def submit(self, number: int, job: dict[str, Any]) -> None:
        self.jobs[number] = job

    def answer(self, number: int, go_on: bool) -> None:
        self.go_on[number] = go_on

    def events(self, timeout: float) -> Iterator[Any]:
        from hybrid_nas.architecture import Architecture
        from hybrid_nas.workers import Done, Report

        waiting = deque(list(self.jobs.items()))
        while waiting:
            number, job = waiting.popleft()
            budget = job["budget"]
            rng = random.Random(Architecture.from_dict(job["architecture"]).id)
            final, noise = 2 + rng.random(), random.Random(number)
            curve, state = [], "complete"
            for share in budget["rungs"]:
                tokens, loss = round(share * budget["tokens"]), final + 0.5 * (1 - share) + noise.gauss(0, 0.05)
                curve.append({"tokens": tokens, "loss": loss, "validation": True, "recall": 0.0})
                yield Report(number, tokens, loss, True, 0.0)
                if not self.go_on.pop(number):
                    state = "stopped"
                    break
            done = state == "complete"
            if done:
                curve.append({"tokens": budget["tokens"], "loss": final, "validation": True, "recall": 0.0})
            outcome = {
                "state": state,
                "values": {"loss": final, "recall": 0.0} if done else {},
                "curve": [{"tokens": at * budget["tokens"] // 40, "loss": final, "validation": False}
                          for at in range(1, 41)] + curve,
                "failure": None,
                "implementations": {"attention": "none", "ssd": "none"},
                "device": "none",
                "seconds": 0.0,
                "tokens": curve[-1]["tokens"],
            }  # fmt: skip
            del self.jobs[number]
            yield Done(number, outcome)

    def close(self) -> None:
        self.jobs.clear()


def opened(folder: Path, trials: int, storage: str, sampler: str, stopping: str, workers: int) -> tuple[Any, Any, Any]:
    """The run folder, the study file and the study."""
    from hybrid_nas.census import Census
    from hybrid_nas.run_folder import Run
    from hybrid_nas.storage import open_storage
    from hybrid_nas.study import Study
    from hybrid_nas.study_file import read_study

    source = HERE / "space.yaml"
    settings = (
        f"search.trials={trials}",
        f"search.sampler={sampler}",
        f"search.workers={workers}",
        f"search.stopping={stopping}",
    )
    file = read_study(source.read_text(), str(source), settings)
    url = f"{'journal' if storage == 'journal' else 'sqlite'}:///{folder / 'study.db'}"
    run = Run(folder)
    run.begin(file)
    return run, file, Study(file, Census.of(file), open_storage(url), None)


class Watch:
    """Notes the time at which each trial ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def begun(self, task: object) -> None: ...
    def moved(self, task: object, tokens: int, loss: float) -> None: ...
    def said(self, text: str) -> None: ...
    def tick(self) -> None: ...
    def ended(self, trial: object) -> None:
        self.ends.append(time.perf_counter())


def measure(trials: int, storage: str, sampler: str, stopping: str, workers: int) -> list[tuple[str, float, str]]:
    """One search, and what reading it costs; to be run in a process of its own, for its memory."""
    from hybrid_nas.front import Front
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.search import Loop
    from hybrid_nas.study import Record

    found = []
    with tempfile.TemporaryDirectory() as name:
        run, file, study = opened(Path(name), trials, storage, sampler, stopping, workers)
        watch = Watch()
        begin = time.perf_counter()
        assert Loop(study, Stub(workers), watch, lambda: False).run()
        took = time.perf_counter() - begin
        searched = [trial for trial in study.all_trials() if trial.replicate_of is None]
        assert len(searched) == trials
        tenth = max(1, trials // 10)
        found += [
            ("loop, per trial", took / len(watch.ends), "s"),
            (
                "loop, per trial of the last tenth",
                (watch.ends[trials - 1] - watch.ends[trials - 1 - tenth]) / tenth,
                "s",
            ),
            ("memory of the driver at its end", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB"),
            ("size of the storage", sum(p.stat().st_size for p in Path(name).glob("study.db*")) / 2**20, "MiB"),
            ("stopped", sum(trial.state == "stopped" for trial in searched) / trials, "share"),
        ]

        def timed(what: str, work: Any) -> Any:
            begin = time.perf_counter()
            result = work()
            found.append((what, time.perf_counter() - begin, "s"))
            return result

        every = study.all_trials()
        timed("trials.parquet, written", lambda: run.write_trials(every, always=True))
        found.append(("size of trials.parquet", (run.path / "trials.parquet").stat().st_size / 2**20, "MiB"))
        read = timed("trials.parquet, read", run.trials)
        front = timed("front", lambda: Front.of(read, file.objectives))
        recipe = timed("recipe", lambda: Recipe.of(read, file.objectives, front))
        page = timed("report", lambda: run.write_report(read, front, recipe, {}, file))
        found.append(("size of the report", page.stat().st_size / 2**20, "MiB"))
        timed("storage, read by a dashboard or a resumed search", lambda: Record(file, study.storage).trials())
    return found


def ask(trials: int, sampler: str, asks: int = 5) -> float:
    """Seconds of one ask after `trials` finished trials, the mean of a few; the storage is memory."""
    import optuna

    from hybrid_nas.census import Census
    from hybrid_nas.proposal import Proposal
    from hybrid_nas.study import Study
    from hybrid_nas.study_file import read_study
    from hybrid_nas.trial import Point, Trial

    source = HERE / "space.yaml"
    file = read_study(source.read_text(), str(source), (f"search.sampler={sampler}",))
    study = Study(file, Census.of(file), optuna.storages.InMemoryStorage(), None)
    rng, seen = random.Random(0), set()
    while len(seen) < trials:
        proposal = Proposal.of(file.space.draw(rng), file)
        if proposal.key in seen:
            continue
        seen.add(proposal.key)
        choices = file.space.choices(proposal.design)
        loss = 2 + random.Random(proposal.proxy.id).random()
        values = {"loss": loss, "recall": 0.0}
        row = Trial(
            len(seen) - 1, "complete", proposal.design, proposal.proxy, proposal.target, proposal.cost, file.budget, 0,
            values, (Point(file.budget.tokens, loss, True),), tokens=file.budget.tokens,
        )  # fmt: skip
        study.study.add_trial(
            optuna.trial.create_trial(
                values=[loss, proposal.cost.cache_bytes],
                params={name: answer for name, (answer, _) in choices.items()},
                distributions={n: optuna.distributions.CategoricalDistribution(o) for n, (_, o) in choices.items()},
                system_attrs={"trial": json.dumps(row.to_dict())},
            )
        )
    study = Study(file, study.census, study.storage, None)
    for _ in range(3):  # the ends of the axis and the first model
        study.ask()
    begin = time.perf_counter()
    for _ in range(asks):
        study.ask()
    return (time.perf_counter() - begin) / asks


def append(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(columns)
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="*", default=[])
    parser.add_argument("--asks", type=int, nargs="*", default=[])
    parser.add_argument("--storage", default="journal", choices=("journal", "sqlite"))
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--samplers", nargs="*", default=["ehvi", "random", "tpe", "nsga2"])
    parser.add_argument("--stopping", default="none")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--here", action="store_true", help="measure in this process, and print")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(measure(given.trials[0], given.storage, given.sampler, given.stopping, given.workers)))
        return
    for trials in given.trials:
        command = [sys.executable, __file__, "--here", "--trials", str(trials), "--storage", given.storage,
                   "--sampler", given.sampler, "--stopping", given.stopping, "--workers", str(given.workers),
                   ]  # fmt: skip
        said = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ}).stdout
        rows = [(what, trials, given.storage, given.sampler, given.stopping, given.workers, f"{value:.6g}", unit)
                for what, value, unit in json.loads(said.splitlines()[-1])]  # fmt: skip
        append(RESULTS, COLUMNS, rows)
        for row in rows:
            print(*row, flush=True)
    for trials in given.asks:
        for sampler in given.samplers:
            seconds = ask(trials, sampler)
            append(ASKS, ("sampler", "trials", "seconds"), [(sampler, trials, f"{seconds:.6g}")])
            print(sampler, trials, seconds, flush=True)


if __name__ == "__main__":
    main()
