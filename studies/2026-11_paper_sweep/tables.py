"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hybrid_nas.rank import Correlation, kendall
from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import paper_predict  # noqa: E402
from markers import run_of, write  # noqa: E402
from paper_study import setting_of  # noqa: E402


def names() -> list[str]:
    return list(run_of(HERE).SETTINGS)


def printed() -> dict[str, float]:
    """Loss at 1B by the id of the model there."""
    found: dict[str, float] = {}
    for table in ("placement", "ratio"):
        for arm in paper_predict.printed(table)[1]:
            if arm.printed[0] is not None:
                found[arm.key] = arm.printed[0]
    return found


def rows(trials: Sequence[Trial]) -> dict[str, list[tuple[str, int, dict[str, float]]]]:
    """Setting -> (what it is, tokens, loss by arm) at every mark: the four of this sweep, and the same arms of the
    studies of the two tables."""
    arms = {t.target.id for t in trials}
    count = len(arms)
    found: dict[str, list[Trial]] = {
        f"width 128, {name}": list(trials[i * count : (i + 1) * count]) for i, name in enumerate(names())
    }
    for table in ("placement", "ratio"):
        for trial in paper_predict.printed(table)[0]:
            known = found.setdefault(f"width 64, {setting_of(trial)}", [])
            if trial.target.id in arms and trial.target.id not in {t.target.id for t in known}:
                known.append(trial)
    made: dict[str, list[tuple[str, int, dict[str, float]]]] = {}
    for name, these in found.items():
        marks = sorted({p.tokens for t in these for p in t.curve if p.validation})
        made[name] = [
            (name, mark, {t.target.id: p.loss for t in these for p in t.curve if p.validation and p.tokens == mark})
            for mark in marks
        ]
    return made


def agreement(trials: Sequence[Trial]) -> str:
    truth = printed()
    lines = [
        "| proxy | arms | tau of loss with 1B after 3M tokens | at the end | tokens at the end |",
        "|---" * 5 + "|",
    ]
    for name, marks in rows(trials).items():
        early = min(marks, key=lambda m: abs(m[1] - 3_000_000))
        cells = []
        for _, _, losses in (early, marks[-1]):
            both = [(loss, truth[arm]) for arm, loss in losses.items() if arm in truth]
            cells.append(str(kendall([a for a, _ in both], [b for _, b in both])))
        lines.append(f"| {name} | {len(marks[-1][2])} | {cells[0]} | {cells[1]} | {marks[-1][1] / 1e6:.0f}M |")
    return "\n".join(lines)


def setting(trials: Sequence[Trial]) -> str:
    return (
        f"{len(trials)} trials of width 128, {sum(t.state != 'complete' for t in trials)} failed, one seed, "
        f"{trials[0].tokens:,} tokens in batches of {trials[0].budget.batch} sequences of 512; {trials[0].device}."
    )


def verdict(trials: Sequence[Trial]) -> str:
    truth, ends = printed(), list[tuple[Correlation, str, int]]()
    for name, marks in rows(trials).items():
        both = [(loss, truth[arm]) for arm, loss in marks[-1][2].items() if arm in truth]
        found = kendall([a for a, _ in both], [b for _, b in both])
        if found is not None:
            ends.append((found, name, marks[-1][1]))
    best, *others = sorted(ends, key=lambda end: -end[0].value)
    low = best[0].low or -1.0
    beside = sum(other.high is None or other.high >= low for other, _, _ in others)
    return (
        f"no setting agrees on loss at 3 million tokens; the highest tau is {best[0]} of {best[1]}, after "
        f"{best[2] / 1e6:.0f}M, and its interval overlaps those of {beside} of the {len(others)} others, so more "
        "tokens are not shown to help (n = 1 seed, unproven)"
    )


TABLES = {"setting": setting, "agreement": agreement, "verdict": verdict}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
