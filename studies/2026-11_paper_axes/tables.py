"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hybrid_nas.rank import Correlation, kendall
from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import paper_predict  # noqa: E402
from markers import run_of, write  # noqa: E402
from paper_study import setting_of  # noqa: E402

Losses = Mapping[str, float]  # id of an arm at 1B -> loss


def printed() -> Losses:
    found: dict[str, float] = {}
    for table in ("placement", "ratio"):
        for arm in paper_predict.printed(table)[1]:
            if arm.printed[0] is not None:
                found[arm.key] = arm.printed[0]
    return found


def base(trials: Sequence[Trial]) -> dict[int, dict[str, float]]:
    """Seed -> loss by arm, of the same arms with nothing changed: the setting `bytes` of the two tables."""
    arms = {t.target.id for t in trials}
    found: dict[int, dict[str, float]] = {}
    for table in ("placement", "ratio"):
        for trial in paper_predict.printed(table)[0]:
            if setting_of(trial) == "bytes" and trial.target.id in arms and trial.state == "complete":
                found.setdefault(trial.seed, {})[trial.target.id] = trial.values["loss"]
    return found


def mean(of: Mapping[int, Losses]) -> dict[str, float]:
    return {arm: float(np.mean([losses[arm] for losses in of.values()])) for arm in of[0]}


def losses(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    every = run_of(HERE).of_settings(list(trials))
    return {n: {t.target.id: t.values["loss"] for t in these if t.state == "complete"} for n, these in every.items()}


def agreed(ours: Losses, theirs: Losses) -> Correlation | None:
    arms = [arm for arm in ours if arm in theirs]
    return kendall([ours[arm] for arm in arms], [theirs[arm] for arm in arms])


def agreement(trials: Sequence[Trial]) -> str:
    truth, bases = printed(), base(trials)
    middle = mean(bases)
    lines = [
        "| changed | tau of loss with 1B [95%] | base, same arms, each seed | tau with the base, mean of seeds |",
        "|---" * 4 + "|",
    ]
    for name, ours in losses(trials).items():
        same = [agreed({arm: of[arm] for arm in ours}, truth) for of in bases.values()]
        each = ", ".join(f"{found.value:.2f}" for found in same if found)
        lines.append(f"| {name} | {agreed(ours, truth)} | {each} | {agreed(ours, middle)} |")
    lines.append(f"| nothing, mean of {len(bases)} seeds | {agreed(middle, truth)} | | 1 by definition |")
    return "\n".join(lines)


def by_arm(trials: Sequence[Trial]) -> str:
    truth, middle, ours = printed(), mean(base(trials)), losses(trials)
    first = {t.target.id: t for t in trials}
    lines = [f"| arm | 1B | base | {' | '.join(ours)} |", "|---" * (3 + len(ours)) + "|"]
    for arm, loss in sorted(truth.items(), key=lambda item: item[1]):
        if arm in first:
            cells = [f"{of[arm]:.4f}" if arm in of else "-" for of in (middle, *ours.values())]
            lines.append(f"| `{first[arm].target.layout}` | {loss:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def setting(trials: Sequence[Trial]) -> str:
    depths = [t.proxy.depth for t in run_of(HERE).of_settings(list(trials))["half the depth"]]
    devices = " and ".join(sorted({t.device for t in trials}))
    return (
        f"{len(trials)} trials of width 64, {sum(t.state != 'complete' for t in trials)} failed, one seed, "
        f"{min(t.tokens for t in trials):,} to {max(t.tokens for t in trials):,} bytes of text; {devices}. Half the "
        f"depth is {min(depths)} to {max(depths)} layers, where {len(depths)} arms are different models."
    )


def verdict(trials: Sequence[Trial]) -> str:
    truth, bases = printed(), base(trials)
    found = {name: agreed(ours, truth) for name, ours in losses(trials).items()}
    parts = ", ".join(f"{name} {value.value:.2f}" for name, value in found.items() if value)
    each = ", ".join(f"{value.value:.2f}" for value in (agreed(of, truth) for of in bases.values()) if value)
    return f"tau of loss with 1B after one change: {parts}; unchanged, each seed: {each} (n = 1 seed, unproven)"


TABLES = {"setting": setting, "agreement": agreement, "arms": by_arm, "verdict": verdict}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
