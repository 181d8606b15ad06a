"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hybrid_nas.cost import params_nonembedding
from hybrid_nas.rank import kendall
from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import write  # noqa: E402

MIB = 2**20


def by_design(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The complete trials of each design, by seed; designs in the order of the space."""
    found: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if trial.state == "complete":
            found.setdefault(trial.key, []).append(trial)
    return list(found.values())


def losses(trials: Sequence[Trial]) -> np.ndarray:
    """(designs, seeds)"""
    return np.array([[trial.values["loss"] for trial in design] for design in by_design(trials)])


def setting(trials: Sequence[Trial]) -> str:
    budget, designs = trials[0].budget, len({t.key for t in trials})
    failed = sum(trial.state != "complete" for trial in trials)
    sizes = [params_nonembedding(trial.proxy) / 1e6 for trial in trials]
    return (
        f"{designs} designs, {len({t.seed for t in trials})} seeds each, {len(trials)} trials, {failed} failed. Width "
        f"{trials[0].proxy.width}, {min(sizes):.2f} to {max(sizes):.2f} million non-embedding parameters, "
        f"{trials[0].tokens:,} bytes in batches of {budget.batch} sequences of 256, a quarter of them strings of "
        f"{budget.recall_symbols} symbols over and over; "
        f"{trials[0].device}; {sum(t.seconds for t in trials) / 3600:.2f} hours of trainings, up to 16 at a time."
    )


def spread(trials: Sequence[Trial]) -> str:
    table = losses(trials)
    paired = table - table.mean(0)
    within = float(np.sqrt(paired.var(1, ddof=1).mean()))
    best = np.sort(table.mean(1))
    near = int((best - best[0] < 2 * within).sum())
    return (
        f"Losses from {best[0]:.3f} to {best[-1]:.3f} nats per byte. One training differs from its design's mean by "
        f"{within:.4f} (standard deviation, seeds' common part taken out); {near} designs lie within twice that of the "
        f"best."
    )


def kinds(trials: Sequence[Trial]) -> str:
    lines = ["| stack | designs | lowest loss | median loss | recall above 0.9 | cache at 1B of the lowest loss |"]
    lines.append("|---" * 6 + "|")
    groups: dict[str, list[list[Trial]]] = {}
    for design in by_design(trials):
        letters = set(design[0].target.layout)
        name = {frozenset("A"): "attention", frozenset("M"): "Mamba-2", frozenset("H"): "parallel"}.get(
            frozenset(letters), "attention and Mamba-2" if "A" in letters else "parallel and Mamba-2"
        )
        groups.setdefault(name, []).append(design)
    for name, designs in groups.items():
        mean = [np.mean([t.values["loss"] for t in d]) for d in designs]
        recall = [np.mean([t.values["recall"] for t in d]) for d in designs]
        best = designs[int(np.argmin(mean))][0]
        lines.append(
            f"| {name} | {len(designs)} | {min(mean):.3f} | {np.median(mean):.3f} | {sum(r > 0.9 for r in recall)} | "
            f"{best.cost.cache_bytes / MIB:.0f} MiB (`{best.target.layout}`) |"
        )
    return "\n".join(lines)


def rungs(trials: Sequence[Trial]) -> str:
    """How far the order at a rung, of one seed, is that of the final mean over seeds."""
    final = losses(trials).mean(1)
    lines = [
        "| share of the tokens | tau, one seed against the final mean of three | tau, mean of three |",
        "|---|---|---|",
    ]
    designs = by_design(trials)
    marks = sorted({point.tokens for t in trials for point in t.curve if point.validation})
    for mark in marks:
        at = np.array([[p.loss for t in d for p in t.curve if p.validation and p.tokens == mark] for d in designs])
        one, mean = kendall(at[:, 0], final), kendall(at.mean(1), final)
        lines.append(f"| {mark / marks[-1]:.3f} | {one} | {mean} |")
    return "\n".join(lines)


def verdict(trials: Sequence[Trial]) -> str:
    table = losses(trials)
    agreement = kendall(table[:, 0], table[:, 1])
    recall = np.array([[t.values["recall"] for t in d] for d in by_design(trials)]).mean(1)
    n = table.shape[1]
    return (
        f"{len(table)} designs: two seeds order them with tau {agreement}; recall is above 0.9 for "
        f"{(recall > 0.9).sum()} and below 0.1 for {(recall < 0.1).sum()} (n = {n} seeds)"
    )


TABLES = {"setting": setting, "spread": spread, "kinds": kinds, "rungs": rungs, "verdict": verdict}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
