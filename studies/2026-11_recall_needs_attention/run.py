"""Train what trials.parquet lacks: every design of study.yaml, at every seed. Resumable; one thread a worker.

python run.py [--workers 2] [--seeds 3]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from pathlib import Path

from hybrid_nas.proposal import Proposal
from hybrid_nas.study_file import StudyFile, read_study
from hybrid_nas.trial import Trial, read_trials, write_trials

HERE = Path(__file__).parent
TRIALS = HERE / "trials.parquet"


def study() -> StudyFile:
    source = HERE / "study.yaml"
    return read_study(source.read_text(), str(source))


def jobs(file: StudyFile, seeds: int) -> list[tuple[int, Proposal, int]]:
    """(number, proposal, seed) of every trial, seed by seed, so that a study cut short is whole in fewer seeds."""
    proposals = {proposal.key: proposal for proposal in (Proposal.of(d, file) for d in file.space.enumerate())}
    pairs = [(proposal, seed) for seed in range(seeds) for proposal in proposals.values()]
    return [(number, proposal, seed) for number, (proposal, seed) in enumerate(pairs)]


def train(job: tuple[int, Proposal, int]) -> Trial:
    import torch

    from hybrid_nas.evaluate import evaluate

    torch.set_num_threads(1)
    number, proposal, seed = job
    file = study()
    outcome = evaluate(proposal.proxy, file.proxy.context, file.budget, None, seed, lambda progress: True, "cpu")
    return Trial(
        number=number,
        design=proposal.design,
        proxy=proposal.proxy,
        target=proposal.target,
        cost=proposal.cost,
        budget=file.budget,
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
                f"{len(trials)}: {trial.proxy.layout} d_state {trial.design.d_state} seed {trial.seed}: {trial.state} "
                f"{trial.values} {trial.seconds:.0f} s {trial.failure or ''}",
                flush=True,
            )


if __name__ == "__main__":
    main()
