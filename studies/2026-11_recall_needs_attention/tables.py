"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from statistics import mean, median

from hybrid_nas.recall import ALPHABET
from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

from markers import write  # noqa: E402

Arms = dict[tuple[str, int | None], list[Trial]]


def arms(trials: list[Trial]) -> Arms:
    """The trials of each layout and state size, attention alone first, pure Mamba last."""
    found: Arms = {}
    for trial in sorted(trials, key=lambda t: (-t.proxy.layout.count("A"), t.design.d_state or 0, t.proxy.layout)):
        found.setdefault((trial.proxy.layout, trial.design.d_state), []).append(trial)
    return found


def scores(arm: list[Trial]) -> list[float]:
    return [trial.values["recall"] for trial in arm if trial.state == "complete"]


def tokens_to_learn(trial: Trial) -> int | None:
    """Tokens until the training loss is below half of what guessing among the values costs."""
    return next((point.tokens for point in trial.curve if point.loss < math.log(ALPHABET) / 2), None)


def recall_table(trials: list[Trial]) -> str:
    lines = [
        "| layers | d_state | recall, mean | lowest | highest | seeds | failed | learned in (tokens, median) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (layout, d_state), arm in arms(trials).items():
        values = scores(arm)
        learned = [tokens for trial in arm if (tokens := tokens_to_learn(trial)) is not None]
        when = f"{median(learned):,.0f} ({len(learned)} of {len(arm)})" if learned else "never"
        lines.append(
            f"| `{layout}` | {d_state or '-'} | {mean(values):.3f} | {min(values):.3f} | {max(values):.3f} | "
            f"{len(values)} | {len(arm) - len(values)} | {when} |"
        )
    return "\n".join(lines)


def verdict(trials: list[Trial]) -> str:
    """One attention layer against none at the smallest state: does every seed of the first pass every one of the
    second?"""
    found = arms(trials)
    state = min(d_state for _, d_state in found if d_state)
    hybrids = {layout: scores(arm) for (layout, d), arm in found.items() if d == state and "A" in layout}
    (pure,) = [scores(arm) for (layout, d), arm in found.items() if d == state and "A" not in layout]
    best = max(hybrids, key=lambda layout: mean(hybrids[layout]))
    held = [layout for layout, values in hybrids.items() if min(values) > max(pure)]
    n = min(len(pure), *map(len, hybrids.values()))
    says = "confirmed" if len(held) == len(hybrids) else f"confirmed for {len(held)} of {len(hybrids)} placements"
    return (
        f"{says if held else 'not confirmed'} at d_state {state}: one attention layer (`{best}`) recalls "
        f"{mean(hybrids[best]):.3f}, none {mean(pure):.3f} (n = {n}{', unproven' if n == 1 else ''})"
    )


def setting(trials: list[Trial]) -> str:
    """What was trained, from the trials themselves."""
    budget, seconds = trials[0].budget, sum(trial.seconds for trial in trials)
    layers = sorted({trial.proxy.depth for trial in trials})
    return (
        f"Width {trials[0].proxy.width}, {' or '.join(map(str, layers))} layers at equal parameters, "
        f"strings of {budget.recall_symbols} bytes, {budget.tokens:,} tokens in batches of {budget.batch}, "
        f"{len(trials)} trials, {seconds / 3600:.1f} hours of one thread each, in all."
    )


TABLES = {"setting": setting, "recall": recall_table, "verdict": verdict}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
