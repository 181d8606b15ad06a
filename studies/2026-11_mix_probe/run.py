"""Train what trials.parquet lacks: the probe `mix` (hybrid_nas/mix.py), at every seed. Resumable; one thread a worker.

python run.py [--workers 2] [--seeds 3]

The weights that the parallel layers learn are in mix.json, by seed: each layer's weight on its Mamba-2 half.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from pathlib import Path

from hybrid_nas.cost import cost
from hybrid_nas.design import Design, architecture_of_layout
from hybrid_nas.layer_order import LayerRun
from hybrid_nas.mix import PARALLEL, MixProbe
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.trial import Trial, read_trials, write_trials

HERE = Path(__file__).parent
TRIALS = HERE / "trials.parquet"
MIX = HERE / "mix.json"


def study() -> StudyFile:
    source = HERE / "study.yaml"
    return read_study(source.read_text(), str(source))


def probe(file: StudyFile) -> MixProbe:
    """All layouts of the file have one depth, which is that of every model; it is not left to the parameter budget."""
    (layers,) = {len(str(arm["layout"])) for arm in file.space.arms if "layout" in arm}
    return MixProbe(layers, file.proxy, file.budget)


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial, seed by seed; of a seed the model of parallel layers comes first."""
    proposals = [proposal(file, layer) for layer in (None, *range(probe(file).layers))]
    pairs = [(each, seed) for seed in range(seeds) for each in proposals]
    return [(number, each, seed) for number, (each, seed) in enumerate(pairs)]


def proposal(file: StudyFile, layer: int | None) -> Proposal:
    probed = probe(file)
    model = probed.parallel() if layer is None else probed.at(layer)
    design = PARALLEL if layer is None else Design(layout=model.layout)
    target = architecture_of_layout(model.layout, design, file.target)
    return Proposal(design, model, target, cost(target, file.target.context))


def train(job: tuple[int, int, int | None]) -> tuple[int, LayerRun]:
    import torch

    torch.set_num_threads(1)
    number, seed, layer = job
    return number, probe(study()).run(seed, layer, "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers read it as they start
    file = study()
    wanted = {number: (each, seed) for number, each, seed in jobs(file, arguments.seeds)}
    layers = dict(enumerate(layer for _, layer in probe(file).jobs(arguments.seeds)))
    trials = {trial.number: trial for trial in (read_trials(TRIALS) if TRIALS.exists() else [])}
    mixes = json.loads(MIX.read_text()) if MIX.exists() else {}
    missing = [(number, seed, layers[number]) for number, (_, seed) in wanted.items() if number not in trials]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for number, run in pool.imap_unordered(train, missing):
            if run.mamba is not None:
                mixes[str(run.seed)] = list(run.mamba)
                MIX.write_text(json.dumps(dict(sorted(mixes.items())), indent=1) + "\n")
            trials[number] = trial(file, number, wanted[number][0], run)
            write_trials([trials[done] for done in sorted(trials)], TRIALS)
            print(
                f"{len(trials)}: seed {run.seed} {trials[number].proxy.layout} {run.loss} {run.mamba or ''} "
                f"{run.seconds:.0f} s {run.failure or ''}",
                flush=True,
            )


def trial(file: StudyFile, number: int, each: Proposal, run: LayerRun) -> Trial:
    return Trial(
        number=number,
        state="failed" if run.loss is None else "complete",
        design=each.design,
        proxy=each.proxy,
        target=each.target,
        cost=each.cost,
        budget=file.budget,
        seed=run.seed,
        values={} if run.loss is None else {"loss": run.loss},
        failure=run.failure,
        implementations=run.implementations,
        device=run.device,
        seconds=run.seconds,
        tokens=file.budget.steps(file.proxy.context) * file.budget.batch * file.proxy.context,
    )


if __name__ == "__main__":
    main()
