"""What a search of thousands of trials costs beside its trainings: the loop on workers that train nothing.

python run.py --trials 1000 3000 10000 [--storage journal] [--sampler random] [--stopping none]   lines of results.csv
python run.py --asks 1000 3000 10000   the time of one ask of each sampler, lines of asks.csv

Times are CPU seconds of the driver where they do not say otherwise. A worker's answer is made up from its job: a loss
that falls towards a value which the design's id decides.
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
        self.ends.append(time.process_time())


def measure(trials: int, storage: str, sampler: str, stopping: str, workers: int) -> Iterator[tuple[str, float, str]]:
    """One search, and what reading it costs; to be run in a process of its own, for its memory."""
    from hybrid_nas.front import Front
    from hybrid_nas.recipe import Recipe
    from hybrid_nas.search import Loop
    from hybrid_nas.study import Record

    with tempfile.TemporaryDirectory() as name:
        run, file, study = opened(Path(name), trials, storage, sampler, stopping, workers)
        watch = Watch()
        begin, began = time.process_time(), time.perf_counter()
        assert Loop(study, Stub(workers), watch, lambda: False).run()
        took, wall = time.process_time() - begin, time.perf_counter() - began
        searched = [trial for trial in study.all_trials() if trial.replicate_of is None]
        assert len(searched) == trials
        tenth = max(1, trials // 10)
        last = watch.ends[trials - 1] - watch.ends[trials - 1 - tenth]
        yield "loop, per trial", took / len(watch.ends), "s"
        yield "loop, per trial, by the wall clock", wall / len(watch.ends), "s"
        yield "loop, per trial of the last tenth", last / tenth, "s"
        yield "memory of the driver at its end", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB"
        yield "size of the storage", sum(p.stat().st_size for p in Path(name).glob("study.db*")) / 2**20, "MiB"
        yield "stopped", sum(trial.state == "stopped" for trial in searched) / trials, "share"
        every = study.all_trials()
        begin = time.process_time()
        run.write_trials(every, always=True)
        yield "trials.parquet, written", time.process_time() - begin, "s"
        yield "size of trials.parquet", (run.path / "trials.parquet").stat().st_size / 2**20, "MiB"
        begin = time.process_time()
        read = run.trials()
        yield "trials.parquet, read", time.process_time() - begin, "s"
        begin = time.process_time()
        Record(file, study.storage).trials()
        yield "storage, read by a dashboard or a resumed search", time.process_time() - begin, "s"
        begin = time.process_time()
        front = Front.of(read, file.objectives)
        yield "front", time.process_time() - begin, "s"
        begin = time.process_time()
        recipe = Recipe.of(read, file.objectives, front)
        yield "recipe", time.process_time() - begin, "s"
        begin = time.process_time()
        page = run.write_report(read, front, recipe, {}, file)
        yield "report", time.process_time() - begin, "s"
        yield "size of the report", page.stat().st_size / 2**20, "MiB"


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
    begin = time.process_time()
    for _ in range(asks):
        study.ask()
    return (time.process_time() - begin) / asks


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
        for found in measure(given.trials[0], given.storage, given.sampler, given.stopping, given.workers):
            print(json.dumps(found), flush=True)
        return
    for trials in given.trials:
        settings = [given.storage, given.sampler, given.stopping, str(given.workers)]
        command = [sys.executable, __file__, "--here", "--trials", str(trials)]
        for name, value in zip(("storage", "sampler", "stopping", "workers"), settings, strict=True):
            command += [f"--{name}", value]
        alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as the commands have it
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=alone) as process:
            assert process.stdout is not None
            for told in process.stdout:
                what, value, unit = json.loads(told)
                append(RESULTS, COLUMNS, [(what, trials, *settings, f"{value:.6g}", unit)])
                print(what, trials, *settings, f"{value:.6g}", unit, flush=True)
    for trials in given.asks:
        for sampler in given.samplers:
            seconds = ask(trials, sampler)
            append(ASKS, ("sampler", "trials", "seconds"), [(sampler, trials, f"{seconds:.6g}")])
            print(sampler, trials, seconds, flush=True)


if __name__ == "__main__":
    main()
