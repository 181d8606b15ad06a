"""`search`: explore a space."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shlex
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybrid_nas.commands.answer import print_front
from hybrid_nas.commands.terminal import INTERRUPTED, AsJson, Set, err, folder_at, out
from hybrid_nas.shipped import find
from hybrid_nas.units import counted, listed

if TYPE_CHECKING:
    from hybrid_nas.census import Census
    from hybrid_nas.data import Text
    from hybrid_nas.lease import Lease
    from hybrid_nas.patience import Patient
    from hybrid_nas.run_folder import Run
    from hybrid_nas.search import Task
    from hybrid_nas.seeds import Seed
    from hybrid_nas.study import Study
    from hybrid_nas.study_file import StudyFile
    from hybrid_nas.trial import Trial
    from hybrid_nas.workers import Pool

SHOWN_S = 2.0
"""How often, at most, the storage is told where a running trial stands."""


def search(
    space: Annotated[str, typer.Argument(help="A study file, or the name of a shipped one.")],
    trials: Annotated[int | None, typer.Option(help="How many designs to try.", min=1)] = None,
    budget: Annotated[str | None, typer.Option(metavar="TOKENS", help="Tokens of one training, like 200k.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of designs, weights and batches.", min=0)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Trainings at a time; default: one a core, or 8 a GPU.", min=1)
    ] = None,
    out_folder: Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/NAME-IDENTITY.")] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the study is recorded: sqlite (in the run folder; the default), journal, "
            "postgresql://USER@HOST/DATABASE or grpc://HOST:PORT.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="[ADDRESS]",
            help="Train on Ray Tune: here, or on the cluster at ADDRESS (HOST:PORT, or auto for one that runs here).",
        ),
    ] = None,
    send_code: Annotated[
        bool, typer.Option("--send-code", help="With --ray: nodes get this package from here; else they have it.")
    ] = False,
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Explore a space, and end with a front, a recipe and a report. The same command continues what was stopped."""
    from hybrid_nas.census import Census
    from hybrid_nas.run_folder import Run, default_folder
    from hybrid_nas.study_file import open_study
    from hybrid_nas.yaml_file import FileError

    _check_ray(ray, send_code)
    path = find(space)
    assignments = list(settings or ())
    assignments += [f"{key}={value}" for key, value in (
        ("search.trials", trials), ("proxy.tokens", budget), ("search.seed", seed), ("search.workers", workers),
    ) if value is not None]  # fmt: skip
    open_study(path)  # what an option hides is still wrong
    file = open_study(path, tuple(assignments))
    census = Census.of(file).checked(file, str(path))
    seeds = _seeds(file, census, str(path))
    from hybrid_nas.data import Corpus, open_corpus
    from hybrid_nas.drawable import Undrawable, check

    try:
        text = open_corpus(Corpus.from_dict(file.data or {}))
        check(text, file.proxy, file.budget)
    except Undrawable as error:
        places = (f"budget.{error.key}", f"proxy.{error.key}", "data")
        line = next((file.places[place] for place in places if place in file.places), None)
        raise FileError(str(path), line, str(error)) from None
    except ValueError as error:
        raise FileError(str(path), file.places.get("data"), str(error)) from None
    from hybrid_nas.measuring import metered

    run = Run(folder_at(out_folder or default_folder(file)))
    fresh = not run.path.exists()
    run.begin(file, storage)
    with run.locked(), contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(metered(file, run.path, run.log))
            means = _opened(stack, run, file, storage, ray, send_code)
        except ValueError:
            if fresh:
                stack.close()  # the lease is given back in a record that is still there
                shutil.rmtree(run.path)
            raise
        if file.meter is not None:  # the census above went by predictions
            census = Census.of(file).checked(file, str(path))
            file.meter.close()  # the device's memory is the trainings'
        finished = _search(run, file, census, seeds, path, text, means, as_json)
    raise typer.Exit(0 if finished else INTERRUPTED)


def _check_ray(ray: str | None, send_code: bool) -> None:
    """ValueError where Ray cannot be used as asked, or an option of Ray's stands alone."""
    if send_code and ray is None:
        raise ValueError(
            "--send-code is for workers on Ray, and without --ray nothing reads it; add --ray (this machine) or --ray "
            "HOST:PORT (a cluster), or leave --send-code away"
        )
    if ray is not None and ray.startswith("ray://"):
        raise ValueError("--ray: Ray's client (ray://) is not used; give HOST:PORT of the cluster, on one of its nodes")
    if ray is not None and importlib.util.find_spec("ray") is None:
        raise ValueError("--ray needs the package ray: pip install 'hybrid-nas[ray]'")


@dataclass(frozen=True)
class Means:
    """What a search works with."""

    storage: Patient
    lease: Lease
    pool: Pool


def _opened(
    stack: contextlib.ExitStack, run: Run, file: StudyFile, storage: str | None, ray: str | None, send_code: bool
) -> Means:
    """The storage, held for this search alone, and the workers."""
    import torch

    from hybrid_nas.lease import Lease
    from hybrid_nas.packed_pool import TOGETHER, PackedPool
    from hybrid_nas.patience import Patient
    from hybrid_nas.processes import ProcessPool
    from hybrid_nas.ray_workers import Cluster, RayPool
    from hybrid_nas.storage import close_storage, open_storage
    from hybrid_nas.study import opened
    from hybrid_nas.workers import default_workers

    inner = open_storage(run.storage(storage))
    stack.callback(close_storage, inner)
    lease = stack.enter_context(Lease(inner, opened(file, inner)._study_id))
    search = file.search
    if ray is None:
        if search.gpus is not None:
            err.print("search.gpus is for workers on Ray (--ray); nothing reads it here", style="dim")
        pool: ProcessPool | PackedPool
        if gpus := torch.cuda.device_count():
            each = -(-search.workers // gpus) if search.workers else TOGETHER
            pool = PackedPool([f"cuda:{i}" for i in range(gpus)], each, log=run.log)
        else:
            pool = ProcessPool(search.workers or default_workers(), log=run.log)
        if file.meter is not None:
            file.meter.quiet = pool.held
        stack.enter_context(pool)
        return Means(Patient(inner), lease, pool)
    err.print("starting Ray" if ray == "local" else f"joining the Ray cluster at {ray}", style="dim")
    cluster = Cluster(
        address=None if ray == "local" else ray,
        size=search.workers,
        gpus=search.gpus,
        memory=search.memory,
        send_code=send_code,
    )
    return Means(Patient(inner), lease, stack.enter_context(RayPool(cluster, file.data or {}, log=run.log)))


def _seeds(file: StudyFile, census: Census, path: str) -> tuple[Seed, ...]:
    """The seeds of a study, found by file or name."""
    if not file.search.seeds:
        return ()
    from hybrid_nas.model_source import find_model
    from hybrid_nas.seeds import seeds_of
    from hybrid_nas.yaml_file import FileError

    designs = {}
    try:
        for name in file.search.seeds:
            source = find_model(name, None, None)
            if source.design is None:
                raise ValueError(f"{name} is one model, with no design that the space could hold")
            designs[name] = source.design
        return seeds_of(designs, file, census)
    except ValueError as error:
        raise FileError(path, file.places.get("search.seeds"), f"seeds: {error}") from None


def _unfit(file: StudyFile, census: Census) -> str:
    """How many of the designs looked at need more memory than the device has that their speeds are predicted for."""
    from hybrid_nas.roofline import device, unfit
    from hybrid_nas.speed import SPEEDS

    if file.measure is None or file.meter is not None:
        return ""
    load, on = file.measure.load(file.target.context), device(file.measure.device)
    names = [objective.name for objective in file.objectives if objective.name in SPEEDS]
    targets = {proposal.target.id: proposal.target for proposal in census.proposals.values()}
    found = [said for target in targets.values() if (said := unfit(target, load, on, names))]
    return f"{len(found):,} of {counted(len(targets), 'model')} at the target: {found[0]}" if found else ""


def _search(
    run: Run,
    file: StudyFile,
    census: Census,
    seeds: tuple[Seed, ...],
    path: Path,
    text: Text,
    means: Means,
    as_json: bool,
) -> bool:
    from hybrid_nas.patience import StorageAway
    from hybrid_nas.progress import JsonLines, Lines, LiveTable, Progress
    from hybrid_nas.reach import SEEDS
    from hybrid_nas.run_folder import environment
    from hybrid_nas.search import Loop, now
    from hybrid_nas.study import Study
    from hybrid_nas.workers import PoolGone

    began, begin = now(), time.monotonic()
    workers = means.pool.size
    study = Study(file, census, means.storage, run.artifacts, [seed.proposal for seed in seeds if seed.same is None])
    before = study.all_trials()
    progress: Progress
    if as_json:
        progress = JsonLines(file, before, workers)
    elif out.is_terminal:
        progress = LiveTable(file, before, workers, out)
    else:
        progress = Lines(file, before, workers, out)
    spaced = len(census.proposals.keys() | {seed.proposal.key for seed in seeds} | {trial.key for trial in before})
    if census.complete:
        progress.planned = min(progress.planned, spaced)
    progress.said(f"space {path}: {counted(census.looked_at, 'design')}, {len(census.proposals):,} different"
                  + (f", {sum(census.refused.values()):,} refused" if census.refused else ""))  # fmt: skip
    for why, count in file.space.left_out.items():
        progress.said(f"left out, {count:,} of the combinations of its lists: {why}")
    for line in census.reasons():
        progress.said(line)
    if said := _unfit(file, census):
        progress.said(said)
    for seed in seeds:
        progress.said(str(seed))
    progress.said(
        f"run {run.path}: {counted(progress.planned, 'trial')} on {counted(workers, 'worker')}; data: {text.described}"
    )
    if (days := file.budget.least_seconds(file.proxy.params, file.proxy.context) / 86_400) > 1:
        progress.said(f"one training takes {days:,.1f} days or more, whatever the device: {file.budget.mode}")
    if progress.planned < file.search.trials:
        progress.said(
            f"{file.search.trials:,} trials are asked for, and the space has {counted(spaced, 'design')}: the search "
            f"ends when each has its trial; {SEEDS} would say more"
        )
    if before:
        progress.said(
            f"done already: {counted(len(study.trials), 'trial')} and {counted(len(study.replicates), 'replicate')}"
        )
    stopped: list[int] = []
    means.storage.said = progress.said
    means.storage.stop = lambda: bool(stopped) or means.lease.lost

    def on_signal(number: int, frame: object) -> None:
        if stopped:
            raise SystemExit(INTERRUPTED)
        stopped.append(number)

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    trouble = ""
    try:
        with progress:
            loop = Loop(study, means.pool, _Writing(progress, run, study), means.storage.stop)
            finished = loop.run()
    except (StorageAway, PoolGone) as error:
        finished, trouble = False, str(error)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if means.lease.lost:
        trouble = "another search took this study up"
    trials = study.all_trials()
    if trouble:
        err.print(f"hybrid-nas: {trouble}; the same command continues", style="red", markup=False, highlight=False)
    if not trials:
        if not trouble:
            err.print("stopped before the first trial was done; the same command begins again", highlight=False)
            return False
        raise typer.Exit(1)
    information = {
        "name": file.name,
        "command": shlex.join(["hybrid-nas", *sys.argv[1:]]),
        "study": (run.path / "study.yaml").read_text(),
        "sampler": file.search.sampler,
        "seed": file.search.seed,
        "started": began,
        "finished": now(),
        "seconds": time.monotonic() - begin,
        "refused": dict(census.refused),
        "left_out": dict(file.space.left_out),
        "coincide": census.coincide,
        "size": census.looked_at if census.complete else file.space.size(),
        "target": file.target.to_dict(),
        "proxy": file.proxy.to_dict(),
        "data": text.described,
        "bytes_per_token": text.bytes_per_token,
        "workers": workers,
        "status": "finished" if finished else "interrupted",
        **environment(trials),
    }
    run.write_answer(trials, information)
    _closing(run, trials, finished, as_json, progress.summary())
    if trouble:
        raise typer.Exit(1)
    if finished and all(trial.state == "failed" for trial in trials):
        raise typer.Exit(1)  # there is no answer
    return finished


class _Writing:
    """A watch that keeps trials.parquet close behind the study, shows in the storage where a running trial stands, and
    passes everything on."""

    def __init__(self, progress: Any, run: Run, study: Study) -> None:
        self.begun, self.said, self.tick = progress.begun, progress.said, progress.tick
        self.progress, self.run, self.study = progress, run, study
        self.shown: dict[int, float] = {}
        self.full = False

    def moved(self, task: Task, tokens: int, loss: float) -> None:
        self.progress.moved(task, tokens, loss)
        now = time.monotonic()
        if (
            task.asked is not None
            and now - self.shown.get(task.number, 0.0) > SHOWN_S
            and now - max(self.shown.values(), default=0.0) > SHOWN_S / 10
        ):
            self.shown[task.number] = now
            self.study.show(task.asked, f"training loss {loss:.4f} at {tokens:,} tokens")

    def ended(self, trial: Trial) -> None:
        self.shown.pop(trial.number, None)
        try:
            self.run.write_trials(self.study.all_trials())
            self.full = False
        except OSError as error:
            if not self.full:
                self.said(f"trials.parquet lags behind: {error}; the record itself is whole")
            self.full = True
        self.progress.ended(trial)


def _closing(run: Run, trials: list[Trial], finished: bool, as_json: bool, summary: dict[str, Any]) -> None:
    if as_json:
        front = json.loads((run.path / "front.json").read_text())
        print(json.dumps({"event": "end", "finished": finished, "run": str(run.path), **summary, "front": front}))
        return
    states = Counter(trial.state for trial in trials if trial.replicate_of is None)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    if not finished:
        out.print(f"\nStopped. {counts}; nothing finished is lost, and the same command continues.", highlight=False)
    print_front(run, trials)
    if states["failed"]:
        failures: dict[str, list[str]] = {}
        for trial in trials:
            if trial.state == "failed":
                failures.setdefault(trial.failure or "no reason recorded", []).append(str(trial.number))
        for reason, numbers in sorted(failures.items(), key=lambda item: -len(item[1]))[:3]:
            which = f"trial{'s' if len(numbers) > 1 else ''} {listed(numbers)}"
            out.print(f"failed, {which}: {reason}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"\n{run.path / 'report.html'}: the report\n{run.path / 'recipe.md'}: the recipe", highlight=False)
