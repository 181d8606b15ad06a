"""Which of many scores of a proxy to trust, chosen without the table that it is judged on.

A score is a z-score of text (which training's loss) plus one of recall (how it is summed up), either alone or both. The
one that agrees best with the printed losses of one table is judged on the other, and the arms that both tables have
are left out of the choice, so that nothing it was chosen on is in its judgement.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from paper_score import Arm, Values, at, minutes, standard, tau
from paper_study import setting_of

from hybrid_nas.trial import Trial

TEXT = ("bytes", "long", "both")
"""Loss after 16 million bytes, after 32 million, or the mean of their z-scores."""
RECALL = {"end": "recall at the end", "loss": "loss on the tasks", "area": "mean recall over the marks"}


def texts(trials: Sequence[Trial], name: str) -> Values:
    if name != "both":
        return standard(at(trials, name))
    one, other = standard(at(trials, "bytes")), standard(at(trials, "long"))
    return standard({key: one[key] + other[key] for key in one if key in other})


def recalls(trials: Sequence[Trial], name: str) -> Values:
    """Lower is better, mean over seeds, in z-scores."""
    if name == "end":
        return standard(at(trials, "tasks", 1.0, "recall"))
    found: dict[str, list[float]] = {}
    for trial in trials:
        if setting_of(trial) != "tasks" or trial.state != "complete":
            continue
        if name == "loss":
            value = float(np.mean([v for key, v in trial.values.items() if key.endswith("_loss")]))
        else:
            value = -float(np.mean([p.recall for p in trial.curve if p.validation and p.recall is not None]))
        found.setdefault(trial.target.id, []).append(value)
    return standard({key: float(np.mean(values)) for key, values in found.items()})


def candidates(trials: Sequence[Trial]) -> dict[tuple[str, str], tuple[Values, float]]:
    """(text, recall) -> the score by arm and its GPU-minutes an arm; "" where one of the two is left out."""
    cost = {"": 0.0, "bytes": minutes("bytes"), "long": minutes("long"), "both": minutes("bytes") + minutes("long")}
    made: dict[tuple[str, str], tuple[Values, float]] = {}
    for text, recall in itertools.product(("", *TEXT), ("", *RECALL)):
        parts = [texts(trials, text)] if text else []
        parts += [recalls(trials, recall)] if recall else []
        if parts:
            keys = set.intersection(*(set(part) for part in parts))
            values = {key: sum(part[key] for part in parts) for key in parts[0] if key in keys}
            made[text, recall] = values, cost[text] + (minutes("tasks") if recall else 0)
    return made


def chosen(trials: Sequence[Trial], of: Sequence[Arm]) -> tuple[str, str]:
    """The candidate of the highest tau with the printed losses of `of`; the cheaper of equals."""
    every = candidates(trials)

    def merit(name: tuple[str, str]) -> tuple[float, float]:
        values, cost = every[name]
        found = tau(values, of)
        return (found.value if found else -1.0), -cost

    return max(every, key=merit)


def named(name: tuple[str, str]) -> str:
    text, recall = name
    words = {"": "", "bytes": "text, 16M", "long": "text, 32M", "both": "text, 16M and 32M"}
    return " + ".join(part for part in (words[text], RECALL.get(recall, "")) if part)


Table = tuple[Sequence[Trial], Sequence[Arm]]


def judged(one: Table, other: Table) -> list[tuple[str, str, str, str]]:
    """(chosen on, score, tau there, tau on the other table) both ways round."""
    rows = []
    for (name, (trials, of)), (its, (their_trials, theirs)) in (
        (("placement", one), ("ratio", other)),
        (("ratio", other), ("placement", one)),
    ):
        shared = {arm.key for arm in theirs}
        alone = [arm for arm in of if arm.key not in shared]
        best = chosen(trials, alone)
        values = candidates(their_trials)[best][0]
        there = tau(candidates(trials)[best][0], alone)
        rows.append((name, named(best), str(there), f"{its}: {tau(values, theirs)}"))
    return rows


def table_text(one: Table, other: Table) -> str:
    """Every candidate on both tables, and what the choice on one is worth on the other."""
    lines = ["| score | GPU-minutes, an arm | tau, placement [95%] | tau, ratio [95%] |", "|---" * 4 + "|"]
    here, there = candidates(one[0]), candidates(other[0])
    for name, (values, cost) in here.items():
        lines.append(f"| {named(name)} | {cost:.2f} | {tau(values, one[1])} | {tau(there[name][0], other[1])} |")
    lines += ["", "| chosen on | score | tau there, its own arms | judged on |", "|---" * 4 + "|"]
    lines += [f"| {' | '.join(row)} |" for row in judged(one, other)]
    return "\n".join(lines)
