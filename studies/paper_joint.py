"""Placement and ratio as one set of arms: the score over both, what seeds are worth, and the proxies by name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import paper_predict
from paper_score import Arm, Values, at, baselines, composite, minutes, standard, tau
from paper_study import setting_of

from hybrid_nas.rank import kendall
from hybrid_nas.trial import Trial

TABLES = ("placement", "ratio")


def both_tables() -> tuple[list[Trial], list[Arm]]:
    """Trials and arms of placement and ratio; an arm that both have once."""
    every, of, seen = list[Trial](), list[Arm](), set[tuple[str, str, int]]()
    for table in TABLES:
        these, rows = paper_predict.printed(table)
        for trial in these:
            place = setting_of(trial), trial.target.id, trial.seed
            if place not in seen:
                seen.add(place)
                every.append(trial)
        of += [arm for arm in rows if arm.key not in {known.key for known in of}]
    return every, of


def joint(trials: Sequence[Trial]) -> str:
    """Placement and ratio as one set of arms; each proxy's z-scores within it."""
    del trials
    every, of = both_tables()
    cost = minutes("bytes") + minutes("tasks")
    lines = ["| order by | tau with 1B over both tables [95%] | without attention alone and windows |", "|---|---|---|"]
    mixed = [arm for arm in of if set("MH") & set(arm.trial.proxy.layout)]
    for name, values in (
        ("text, bytes", at(every, "bytes")),
        ("text, twice the bytes", at(every, "long")),
        ("recall, four tasks", at(every, "tasks", 1.0, "recall")),
        ("composite", composite(every)),
        *((f"composite, seed {seed} alone", composite(every, 1.0, seed)) for seed in range(3)),
        ("composite with twice the bytes", composite(every, text_of="long")),
        ("parameters at 1B, more is better", baselines(of)["parameters at 1B, more is better"]),
        ("training FLOPs at 1B, more is better", baselines(of)["training FLOPs at 1B, more is better"]),
        ("the paper's 350M", baselines(of)["the paper's 350M"]),
    ):
        lines.append(f"| {name} | {tau(values, of)} | {tau(values, mixed)} |")
    told = (
        f"The composite costs {cost * len(of):.1f} GPU-minutes for all {len(of)} arms. The proxy with itself: tau of "
        f"the recall of two seeds {between(every, 'tasks', 'recall')}, of the loss on text {between(every, 'bytes')}, "
        f"of the loss on text after 16 with that after 32 million bytes "
        f"{agreed(at(every, 'bytes'), at(every, 'long')):.2f}."
    )
    return "\n".join([*lines, "", told, "", sizes(of)])


def sizes(of: Sequence[Arm]) -> str:
    """Why the tau of the paper's own 350M is not the same everywhere."""
    placement, ratio = (paper_predict.printed(table)[1] for table in TABLES)
    other = {arm.key: arm for arm in ratio}
    (twice,) = (arm for arm in placement if arm.key in other and other[arm.key].printed != arm.printed)
    again = other[twice.key]
    found = [
        of_sizes(rows)
        for rows in (of, [again if arm is twice else other.get(arm.key, arm) for arm in of], placement, ratio)
    ]
    return (
        f"The paper prints two losses of one model at 350M: {twice.printed[1]} as {twice.name} of the placement table "
        f"and {again.printed[1]} as {again.name} of the ratio table. Over both the tau of its 350M is {found[0]} with "
        f"the first, as here, and {found[1]} with the second. Of the placement table alone it is {found[2]}, which the "
        f"goal is taken from; of the ratio table alone {found[3]}."
    )


def of_sizes(of: Sequence[Arm]) -> str:
    """Tau of the printed losses at 350M with those at 1B."""
    pairs = [arm.printed for arm in of if None not in arm.printed]
    found = kendall([small for _, small in pairs], [large for large, _ in pairs])
    assert found is not None
    return f"{found.value:.2f} (n = {len(pairs)})"


def between(trials: Sequence[Trial], setting: str, quantity: str = "loss") -> str:
    """How far two seeds of a proxy order the arms alike, over the pairs of seeds."""
    of = [at(trials, setting, 1.0, quantity, seed) for seed in range(3)]
    found = [agreed(one, other) for one, other in itertools.combinations(of, 2)]
    return f"{min(found):.2f} to {max(found):.2f}"


def agreed(one: Values, other: Values) -> float:
    found = kendall([one[key] for key in one], [other[key] for key in one])
    assert found is not None
    return found.value


def by_seeds(trials: Sequence[Trial]) -> str:
    """What seeds are worth: tau of the composite of every choice of one, two or three; and what common batches are."""
    del trials
    every, of = both_tables()
    mixed = [arm for arm in of if set("MH") & set(arm.trial.proxy.layout)]
    by_seed = {s: (at(every, "bytes", seed=s), at(every, "tasks", 1.0, "recall", s)) for s in range(3)}
    lines = ["| seeds | GPU-minutes, all arms | tau of the composite with 1B, each choice of them |", "|---|---|---|"]
    for n in (1, 2, 3):
        found = []
        for chosen in itertools.combinations(range(3), n):
            text, recall = (mean_of([by_seed[s][i] for s in chosen]) for i in (0, 1))
            text, recall = standard(text), standard(recall)
            found.append(tau({key: text[key] + recall[key] for key in text if key in recall}, of))
        cost = (minutes("bytes", 1, n) + minutes("tasks", 1, n)) * len(of)
        lines.append(f"| {n} | {cost:.1f} | {', '.join(f'{t.value:.2f}' for t in found if t)} |")
    table = np.array([[by_seed[s][0][arm.key] for s in range(3)] for arm in mixed])
    alone = np.sqrt(table.var(axis=1, ddof=1).mean())
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + table.mean()
    paired = np.sqrt((rest**2).sum() / ((len(mixed) - 1) * 2))
    spread = table.mean(axis=1).std(ddof=1)
    told = (
        f"Loss on text of the {len(mixed)} arms with Mamba-2: seeds of one arm differ by {alone:.4f} nats per byte "
        f"(standard deviation), by {paired:.4f} where what a seed does to all arms is taken out, as a difference on "
        f"common batches does. The arms' means differ by {spread:.4f}."
    )
    return "\n".join([*lines, "", told])


def mean_of(parts: Sequence[Values]) -> Values:
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0]}


PRESETS = {"quick": 0.25, "standard": 0.5, "thorough": 1.0}
"""Name of a proxy -> the share of the tokens of `tasks` that it trains on."""


def presets(trials: Sequence[Trial]) -> str:
    """What the proxies by name agree with, read off the prefixes of one training."""
    del trials
    both, of = both_tables()
    lines = ["| `proxy` | tokens | GPU-seconds a training, packed | tau of recall with 1B, one seed (each of three) "]
    lines[0] += "| mean recall of three seeds | mean loss of three seeds |"
    lines.append("|---" * 6 + "|")
    whole = next(t for t in both if t.budget.tasks).tokens
    for name, share in PRESETS.items():
        recall, loss = at(both, "tasks", share, "recall"), at(both, "tasks", share)
        single = [tau(at(both, "tasks", share, "recall", seed), of) for seed in range(3)]
        alone = [f"{found.value:.2f}" for found in single if found]
        lines.append(
            f"| `{name}` | {whole * share / 1e6:.0f}M | {minutes('tasks', share, 1) * 60:.1f} | {', '.join(alone)} | "
            f"{tau(recall, of)} | "
            f"{tau(loss, of)} |"
        )
    return "\n".join(lines)


def curve(trials: Sequence[Trial]) -> str:
    """Tau against cost for what one arm is given: text, tasks or both, after shares of their tokens."""
    del trials
    both, of = both_tables()
    lines = ["| one arm is given | GPU-seconds, packed | tau with 1B, each seed | mean | three seeds together [95%] |"]
    lines.append("|---" * 5 + "|")
    rows = [(name, share) for name in ("tasks", "bytes", "both") for share in (0.25, 0.5, 1.0)]
    found = []
    for name, share in rows:
        parts = ("bytes", "tasks") if name == "both" else (name,)
        cost = 60 * sum(minutes(part, share, 1) for part in parts)
        *single, together = (tau(_score(both, name, share, seed), of) for seed in (0, 1, 2, None))
        each = [correlation.value for correlation in single if correlation]
        words = {"tasks": "tasks, recall", "bytes": "text, loss", "both": "both, composite"}[name]
        line = f"| {words}, {share:g} of the tokens | {cost:.1f} | {', '.join(f'{value:.2f}' for value in each)} | "
        found.append((cost, line + f"{np.mean(each):.2f} | {together} |"))
    return "\n".join(lines + [line for _, line in sorted(found)])


def _score(trials: Sequence[Trial], name: str, share: float, seed: int | None) -> Values:
    if name == "both":
        return composite(trials, share, seed)
    return at(trials, name, share, "recall" if name == "tasks" else "loss", seed)
