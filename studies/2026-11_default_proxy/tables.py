"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import mean

from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import write  # noqa: E402

Arm = tuple[int, str, int | None]


def arms(trials: list[Trial]) -> dict[Arm, dict[float, list[Trial]]]:
    """(width, layout, d_state) -> learning rate -> the trials of each seed; attention alone first."""
    found: dict[Arm, dict[float, list[Trial]]] = {}
    for trial in sorted(trials, key=lambda t: (t.proxy.width, -t.proxy.layout.count("A"), t.design.d_state or 0)):
        rates = found.setdefault((trial.proxy.width, trial.proxy.layout, trial.design.d_state), {})
        rates.setdefault(trial.budget.learning_rate or 0.0, []).append(trial)
    return found


def mean_of(trials: list[Trial], name: str) -> float:
    return mean(trial.values[name] for trial in trials if trial.state == "complete")


def at_the_rule(width: int) -> float:
    return 3e-3 * 64 / width


def table(trials: list[Trial], name: str, digits: int) -> str:
    """Mean over seeds, lowest to highest, at each multiple of the rule's rate."""
    lines = ["| width | layers | d_state | half the rate | the rate | twice the rate | seeds |", "|---" * 7 + "|"]
    for (width, layout, d_state), rates in arms(trials).items():
        cells = []
        for rate in sorted(rates):
            values = sorted(trial.values[name] for trial in rates[rate] if trial.state == "complete")
            cells.append(f"{mean(values):.{digits}f} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})")
        seeds = min(len(arm) for arm in rates.values())
        lines.append(f"| {width} | `{layout}` | {d_state or '-'} | {' | '.join(cells)} | {seeds} |")
    return "\n".join(lines)


def loss_table(trials: list[Trial]) -> str:
    return table(trials, "loss", 3)


def recall_table(trials: list[Trial]) -> str:
    return table(trials, "recall", 3)


def verdict(trials: list[Trial]) -> str:
    found = arms(trials)
    best = sum(
        min(rates, key=lambda rate: mean_of(rates[rate], "loss")) == at_the_rule(w)
        for (w, _, _), rates in found.items()
    )
    by_attention: dict[bool, list[float]] = {True: [], False: []}
    for (width, layout, _), rates in found.items():
        by_attention["A" in layout] += [trial.values["recall"] for trial in rates[at_the_rule(width)]]
    n = min(len(arm) for rates in found.values() for arm in rates.values())
    low, high = min(by_attention[True]), max(by_attention[False])
    says = "separates" if low > high else "does not separate"
    return (
        f"recall {says} at the default: {low:.3f} or more with attention, {high:.3f} or less without, state of 128 "
        f"included; 3e-3 x 64 / width has the lowest mean loss in {best} of {len(found)} arms "
        f"(n = {n}{', unproven' if n == 1 else ''})"
    )


def setting(trials: list[Trial]) -> str:
    """What was trained, from the trials themselves."""
    budget, seconds = trials[0].budget, sum(trial.seconds for trial in trials)
    failed = sum(trial.state != "complete" for trial in trials)
    return (
        f"{budget.tokens:,} tokens in batches of {budget.batch} sequences, half text (Python's standard library), half "
        f"strings of {budget.recall_symbols} bytes, over and over; {len(trials)} trials, {failed} failed, "
        f"{seconds / 3600:.1f} hours of one thread each, in all."
    )


TABLES = {"setting": setting, "loss": loss_table, "recall": recall_table, "verdict": verdict}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
