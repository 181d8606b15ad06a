"""Train what trials.parquet lacks: the arms of study.yaml at several learning rates, and two of them at other widths.
Resumable; one thread a worker.

python run.py [--workers 2] [--seeds 3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

from hybrid_nas.budget import Budget
from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.trial import Trial, read_trials, write_trials

HERE = Path(__file__).parent
TRIALS = HERE / "trials.parquet"
TIMES_THE_RULE = (0.25, 0.5, 1.0)  # learning rates, as multiples of 6e-3 * 64 / width
OTHER_WIDTHS = {32: 175_000, 128: 2_800_000}  # width -> parameter budget: about as deep as at width 64
Job = tuple[int, Proposal, int]


def study(width: int = 64) -> StudyFile:
    source = HERE / "study.yaml"
    changes = () if width == 64 else (f"proxy.width={width}", f"proxy.params={OTHER_WIDTHS[width]}")
    return read_study(source.read_text(), str(source), changes)


def arms() -> list[tuple[Proposal, Budget]]:
    """At every rate: a state of 16 with each ratio and one of 128 without attention at width 64; at other widths 1:3
    and 0:1 with a state of 16."""
    found = []
    for width in (64, *OTHER_WIDTHS):
        file = study(width)
        proposals = {p.key: p for p in (Proposal.of(design, file) for design in file.space.enumerate())}
        for proposal in proposals.values():
            design = proposal.design
            ratio, small = str(design.ratio), design.d_state in (None, 16)
            if (small or ratio == "0:1") if width == 64 else (small and ratio in ("1:3", "0:1")):
                found += [
                    (proposal, replace(file.budget, learning_rate=times * 6e-3 * 64 / width))
                    for times in TIMES_THE_RULE
                ]
    return found


def budgets() -> set[Budget]:
    return {budget for _, budget in arms()}


def jobs(file: StudyFile, seeds: int) -> list[Job]:
    """(number, proposal, seed) of every trial, seed by seed, so that a study cut short is whole in fewer seeds."""
    del file
    pairs = [(proposal, seed) for seed in range(seeds) for proposal, _ in arms()]
    return [(number, proposal, seed) for number, (proposal, seed) in enumerate(pairs)]


def train(job: Job) -> Trial:
    import torch

    from hybrid_nas.evaluate import evaluate

    torch.set_num_threads(1)
    number, proposal, seed = job
    every = arms()
    budget = every[number % len(every)][1]
    outcome = evaluate(proposal.proxy, study().proxy.context, budget, None, seed, lambda progress: True, "cpu")
    return Trial(
        number=number,
        design=proposal.design,
        proxy=proposal.proxy,
        target=proposal.target,
        cost=proposal.cost,
        budget=budget,
        seed=seed,
        **vars(outcome),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers read it as they start
    trials = {trial.number: trial for trial in (read_trials(TRIALS) if TRIALS.exists() else [])}
    missing = [job for job in jobs(study(), arguments.seeds) if job[0] not in trials]
    with multiprocessing.get_context("spawn").Pool(arguments.workers, maxtasksperchild=1) as pool:
        for trial in pool.imap_unordered(train, missing):
            trials[trial.number] = trial
            write_trials([trials[number] for number in sorted(trials)], TRIALS)
            print(
                f"{len(trials)}: width {trial.proxy.width} {trial.proxy.layout} d_state {trial.design.d_state} "
                f"rate {trial.budget.learning_rate} seed {trial.seed}: {trial.state} {trial.values} "
                f"{trial.seconds:.0f} s {trial.failure or ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
