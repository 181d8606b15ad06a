"""How far an order of arms is that of the paper, for proxies, their prefixes and baselines; and losses at 1B predicted
from proxies.

The composite is decided once for all tables: the z-score of the loss on text (`bytes`) less that of the recall over
four tasks (`tasks`, mean over seeds), each over the arms of the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from paper_study import SETTINGS, most_seeds, setting_of
from paper_truth import Row

from hybrid_nas.cost import params_nonembedding
from hybrid_nas.rank import Correlation, kendall
from hybrid_nas.trial import Trial

Values = dict[str, float]  # id of an arm at 1B -> value; lower is better


@dataclass(frozen=True)
class Arm:
    """An arm of a table in its order: `printed` at 1B and 350M."""

    name: str
    key: str
    printed: tuple[float | None, float | None]
    trial: Trial


def arms(trials: Sequence[Trial], rows: Sequence[Row]) -> list[Arm]:
    """The arms in the order of the first setting's first seed, which is the space's."""
    seen: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        seen.setdefault(trial.target.id, trial)
    assert len(seen) == len(rows), (len(seen), len(rows))
    return [Arm(row[0], key, row[1:], trial) for (key, trial), row in zip(seen.items(), rows, strict=True)]


def at(
    trials: Sequence[Trial], setting: str, share: float = 1.0, quantity: str = "loss", seed: int | None = None
) -> Values:
    """Mean over seeds (or that of one) of the held-out loss or the recall after `share` of the tokens."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        if setting_of(trial) != setting or trial.state != "complete" or seed not in (None, trial.seed):
            continue
        point = min((p for p in trial.curve if p.validation), key=lambda p: abs(p.tokens / trial.tokens - share))
        value = point.loss if quantity == "loss" else point.recall
        if value is not None:
            found.setdefault(trial.target.id, []).append(value if quantity == "loss" else -value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def standard(values: Mapping[str, float]) -> Values:
    array = np.array(list(values.values()))
    return dict(zip(values, (array - array.mean()) / (array.std() or 1.0), strict=True))


def composite(trials: Sequence[Trial], share: float = 1.0, seed: int | None = None, text_of: str = "bytes") -> Values:
    """Mean over seeds, or of one: of the text and the tasks alike."""
    text = standard(at(trials, text_of, share, "loss", seed))
    recall = standard(at(trials, "tasks", share, "recall", seed))
    return {key: text[key] + recall[key] for key in text if key in recall}


def minutes(setting: str, share: float = 1.0, seeds: int | None = None) -> float:
    """GPU-minutes of one arm: the wall clock of the run that trained it times its GPUs, over its trainings."""
    entry = SETTINGS[setting]
    return float(entry["gpu_seconds"]) / 60 * share * (most_seeds(setting) if seeds is None else seeds)


def tau(values: Mapping[str, float], of: Sequence[Arm], scale: int = 0) -> Correlation | None:
    """Kendall's tau between `values` and the printed losses (`scale` 0: 1B, 1: 350M) of the arms that have both."""
    both = [(values[arm.key], arm.printed[scale]) for arm in of if arm.key in values and arm.printed[scale] is not None]
    return kendall([float(ours) for ours, _ in both], [float(theirs) for _, theirs in both if theirs is not None])


def baselines(of: Sequence[Arm]) -> dict[str, Values]:
    return {
        "parameters at 1B, more is better": {arm.key: -float(params_nonembedding(arm.trial.target)) for arm in of},
        "training FLOPs at 1B, more is better": {arm.key: -arm.trial.cost.train_flops_per_token for arm in of},
        "the paper's 350M": {arm.key: arm.printed[1] for arm in of if arm.printed[1] is not None},
    }


def score_table(trials: Sequence[Trial], of: Sequence[Arm]) -> str:
    lines = ["| order by | GPU-minutes, all arms | tau with 1B [95%] |", "|---|---|---|"]

    def line(name: str, cost: float | None, values: Values) -> None:
        cells = "-" if cost is None else f"{cost * len(of):.1f}"
        lines.append(f"| {name} | {cells} | {tau(values, of)} |")

    n = len({trial.seed for trial in trials if setting_of(trial) == "tasks"})
    texts = len({trial.seed for trial in trials if setting_of(trial) == "bytes"})
    for setting, what in (("words", "text, words"), ("bytes", "text, bytes"), ("long", "text, twice the bytes")):
        if at(trials, setting):
            many = f", {texts} seeds" if setting == "bytes" and texts > 1 else ""
            line(what + many, minutes(setting), at(trials, setting))
    for seed in range(texts if texts > 1 else 0):
        line(f"text, bytes, seed {seed} alone", minutes("bytes", 1, 1), at(trials, "bytes", seed=seed))
    line(f"recall, four tasks, {n} seeds", minutes("tasks"), at(trials, "tasks", 1.0, "recall"))
    line(f"composite of bytes and tasks, {n} seeds", minutes("bytes") + minutes("tasks"), composite(trials))
    for seed in range(n):
        cost = minutes("bytes", 1, 1) + minutes("tasks", 1, 1)
        line(f"composite, seed {seed} alone", cost, composite(trials, 1.0, seed))
    for share in (0.5, 0.25, 0.125):
        cost = minutes("bytes", share) + minutes("tasks", share)
        line(f"composite after {share:g} of the tokens", cost, composite(trials, share))
    line(
        "composite of twice the bytes and tasks", minutes("long") + minutes("tasks"), composite(trials, text_of="long")
    )
    for name, values in baselines(of).items():
        line(name, None, values)
    lines.append("| random | 0 | 0 by definition |")
    return "\n".join(lines)


def arm_table(trials: Sequence[Trial], of: Sequence[Arm]) -> str:
    """Our table beside theirs."""
    columns = {s: at(trials, s) for s in ("words", "bytes", "long") if at(trials, s)}
    recall, both = at(trials, "tasks", 1.0, "recall"), composite(trials)
    head = ["arm", "layers", "1B", "350M", *(f"text, {s}" for s in columns), "recall", "composite"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for arm in of:
        cells = [arm.name, f"`{arm.trial.proxy.layout}`"]
        cells += ["-" if value is None else f"{value:.3f}" for value in arm.printed]
        cells += [f"{values[arm.key]:.4f}" for values in columns.values()]
        cells += [f"{-recall[arm.key]:.3f}", f"{both[arm.key]:+.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def setting_text(trials: Sequence[Trial], table: str = "") -> str:
    lines = []
    for setting in SETTINGS:
        these = [t for t in trials if setting_of(t) == setting]
        if not these:
            continue
        first, n = these[0], len({t.seed for t in these})
        named = ", ".join(f"`{task}`" for task in first.budget.tasks)
        seconds = SETTINGS[setting].get("gpu_seconds_of", {}).get(table, SETTINGS[setting].get("gpu_seconds"))
        devices = sorted({trial.device for trial in these})
        tasks = f", half of the sequences {named}" if named else ""
        lines.append(
            f"- `{setting}`: {len({t.target.id for t in these})} arms, {n} seed{'s' if n > 1 else ''}, "
            f"{first.tokens:,} tokens in batches of {first.budget.batch} sequences{tasks}, "
            f"{sum(t.state != 'complete' for t in these)} failed; "
            + (
                f"{seconds:.1f} GPU-seconds a training, packed ({' and '.join(devices)})"
                if seconds is not None
                else f"{np.median([t.seconds for t in these]):.0f} seconds a training, median, on a busy CPU's thread"
            )
        )
    sizes = [params_nonembedding(t.proxy) / 1e6 for t in trials]
    lines.append(
        f"- width {trials[0].proxy.width}, {min(sizes):.2f} to {max(sizes):.2f} million non-embedding parameters"
    )
    return "\n".join(lines)
