"""The folder of a probe: its trainings, each kept as soon as it ends, so that the same command continues."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path

from hybrid_nas.layer_order import LayerOrder, LayerRun
from hybrid_nas.mix import MixProbe
from hybrid_nas.run_folder import Run
from hybrid_nas.whole_file import write_whole

FILE = "probe.json"


def run_probe(
    probe: MixProbe, seeds: int, workers: int, folder: Path, heard: Callable[[LayerRun, int, int], None]
) -> LayerOrder:
    """Train what `folder` lacks of `seeds` seeds, `workers` at a time, one thread each. `heard` gets each finished
    training, how many of these are done, and how many there are. ValueError where the folder holds another probe."""
    path = folder / FILE
    runs = _read(path, probe)
    missing = [job for job in probe.jobs(seeds) if job not in runs]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        processes = multiprocessing.get_context("spawn")
        begin = [(probe, seed, layer) for seed, layer in missing]
        with Run(folder).locked(), processes.Pool(min(workers, len(missing)), _one_thread) as pool:
            for done, run in enumerate(pool.imap_unordered(_train, begin), 1):
                runs[run.seed, run.layer] = run
                _write(path, probe, runs)
                heard(run, done, len(missing))
    return LayerOrder(probe.layers, tuple(runs[job] for job in probe.jobs(seeds)))


def _one_thread() -> None:
    """Of a worker: Ctrl-C is for the command, which ends its workers; and one thread, so that a seed is one result."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _train(job: tuple[MixProbe, int, int | None]) -> LayerRun:
    probe, seed, layer = job
    return probe.run(seed, layer)


def _read(path: Path, probe: MixProbe) -> dict[tuple[int, int | None], LayerRun]:
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text())
        runs = [LayerRun.from_dict(run) for run in record["runs"]]
        there = record["probe"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a record of a probe ({type(error).__name__}: {error})") from error
    wanted = json.loads(json.dumps(probe.to_dict()))
    if there != wanted:
        differs = ", ".join(name for name, value in wanted.items() if there.get(name) != value)
        raise ValueError(f"{path} holds another probe, which differs in {differs}; give another --out")
    return {(run.seed, run.layer): run for run in runs}


def _write(path: Path, probe: MixProbe, runs: dict[tuple[int, int | None], LayerRun]) -> None:
    record = {"probe": probe.to_dict(), "runs": [run.to_dict() for run in runs.values()]}
    write_whole(path, json.dumps(record, indent=1))
