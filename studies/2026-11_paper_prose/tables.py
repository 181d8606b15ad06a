"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from hybrid_nas.architecture import Mamba2
from hybrid_nas.cost import params_nonembedding
from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import paper_joint  # noqa: E402
import paper_score  # noqa: E402
from markers import run_of, write  # noqa: E402
from paper_predict import Line, check  # noqa: E402
from paper_score import Arm, Values, arms, standard, tau  # noqa: E402
from paper_truth import PLACEMENT, POSITIONS, RATIO, SPLIT  # noqa: E402

GOAL = 0.79
SHARED = {"1:1 end", "1:3 middle", "1:5 middle", "1:12 at 7", "attention alone", "Mamba-2 alone"}
"""Arms of the placement table that stand in the ratio table too."""
ROWS = [row for row in RATIO if row[1] is not None] + [row for row in PLACEMENT if row[0] not in SHARED]
SCORED = ("state 16", "half", "state 64", "state 64, four times the rate", "repeated")
SHOWN = ("state 16", "state 64, four times the rate")
"""Arm by arm."""
BY_PREFIX = ("state 16", "half")
"""Prefix by prefix."""
PRESETS = {"quick": ("half", 0.5), "standard": ("half", 1.0), "thorough": ("state 16", 1.0)}
"""A proxy by name -> the setting that it is, or whose prefix it is, and the share of its tokens."""
QUANTITIES = {"loss": "all text", "ar_hits": "AR hits", "ar_hits_other": "the rest"}


def run() -> Any:
    return run_of(HERE)


def of_settings(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = run().of_settings(list(trials))
    return found


def by_arm_of(trials: Sequence[Trial], value: Callable[[Trial], float], seed: int | None = None) -> Values:
    """Mean over the seeds of each arm, or that of one."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        if trial.state == "complete" and seed in (None, trial.seed):
            found.setdefault(trial.target.id, []).append(value(trial))
    return {arm: float(np.mean(values)) for arm, values in found.items()}


def of_value(name: str) -> Callable[[Trial], float]:
    return lambda trial: trial.values[name]


def after(share: float) -> Callable[[Trial], float]:
    """Held-out loss at the mark nearest to `share` of the tokens."""

    def loss(trial: Trial) -> float:
        return min((p for p in trial.curve if p.validation), key=lambda p: abs(p.tokens / trial.tokens - share)).loss

    return loss


def score(trials: Sequence[Trial], seed: int | None = None) -> Values:
    """The z-score of the loss on all text plus that of the loss on AR hits."""
    whole, told = (standard(by_arm_of(trials, of_value(name), seed)) for name in ("loss", "ar_hits"))
    return {arm: whole[arm] + told[arm] for arm in whole}


def parts(of: Sequence[Arm]) -> tuple[list[Arm], list[Arm]]:
    """Those of the placement table, and of the ratio table."""
    ratio = {row[0] for row in RATIO}
    shared = {"attention alone", "Mamba-2 alone", "inter 1:1", "inter 1:3", "inter 1:5", "inter 1:12"}
    return [a for a in of if a.name not in ratio or a.name in shared], [a for a in of if a.name in ratio]


def minutes(setting: str, n: int, share: float = 1.0) -> float:
    return float(run().GPU_SECONDS[setting] * run().SETTINGS[setting].seeds) * n * share / 60


def agreement(trials: Sequence[Trial]) -> str:
    every = of_settings(trials)
    of = arms(every[SCORED[0]], ROWS)
    mixed = [arm for arm in of if set("MH") & set(arm.trial.proxy.layout)]
    placement, ratio = parts(of)
    head = ["order by", "GPU-minutes", "tau with 1B [95%]", "with Mamba-2 in them", "placement", "ratio"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]

    def line(name: str, cost: float | None, values: Values) -> None:
        found = [str(tau(values, chosen)) for chosen in (of, mixed, placement, ratio)]
        lines.append(f"| {name} | {'-' if cost is None else f'{cost:.1f}'} | {' | '.join(found)} |")

    n = len(of)
    for setting in SCORED:
        these = every[setting]
        for name, words in QUANTITIES.items():
            line(f"{setting}: loss on {words}", minutes(setting, n), by_arm_of(these, of_value(name)))
        line(f"{setting}: the score", minutes(setting, n), score(these))
        seeds = sorted({trial.seed for trial in these})
        for seed in seeds if len(seeds) > 1 else ():
            line(f"{setting}: the score, seed {seed} alone", minutes(setting, n) / len(seeds), score(these, seed))
        for share in (0.125, 0.25, 0.5, 0.75) if setting in BY_PREFIX else ():
            said = f"{setting}: loss on all text after {share:g} of the tokens"
            line(said, minutes(setting, n, share), by_arm_of(these, after(share)))
    both = ("state 16", "state 64")
    one, other = (standard(score(every[setting])) for setting in both)
    line(
        "the scores of both states added", sum(minutes(s, n) for s in both), {arm: one[arm] + other[arm] for arm in one}
    )
    known, _ = paper_joint.both_tables()
    cost = (paper_score.minutes("bytes") + paper_score.minutes("tasks")) * n
    line("width 64, manuals and tasks, 3 seeds", cost, paper_score.composite(known))
    for name, values in paper_score.baselines(of).items():
        line(name, None, values)
    return "\n".join([*lines, "| random | 0 | 0 by definition | | | |"])


def by_arm(trials: Sequence[Trial]) -> str:
    every = of_settings(trials)
    of = arms(every[SCORED[0]], ROWS)
    head = ["arm", "layers", "1B", "350M", *(f"{s}: {QUANTITIES[q]}" for s in SHOWN for q in ("loss", "ar_hits"))]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    columns = [by_arm_of(every[setting], of_value(q)) for setting in SHOWN for q in ("loss", "ar_hits")]
    for arm in sorted(of, key=lambda arm: arm.printed[0] or 0.0):
        cells = [arm.name, f"`{arm.trial.target.layout}`"]
        cells += ["-" if value is None else f"{value:.3f}" for value in arm.printed]
        cells += [f"{values[arm.key]:.4f}" if arm.key in values else "-" for values in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def setting(trials: Sequence[Trial]) -> str:
    lines = []
    for name, these in of_settings(trials).items():
        first = these[0]
        sizes = [params_nonembedding(t.proxy) / 1e6 for t in these]
        (state,) = states(these)
        told = run().GROWN.study(name).proxy
        lines.append(
            f"- `{name}`: {len({t.target.id for t in these})} arms, n = {len({t.seed for t in these})}, "
            f"{first.tokens:,} tokens in batches "
            f"of {first.budget.batch} sequences of {told.context:,}; width {told.width}, state of {state}, "
            f"{min(sizes):.2f} to {max(sizes):.2f} million non-embedding parameters; "
            f"{sum(t.state != 'complete' for t in these)} failed; {run().GPU_SECONDS[name]:.1f} GPU-seconds a "
            f"training, packed ({' and '.join(sorted({t.device for t in these}))})"
        )
    return "\n".join(lines)


def states(trials: Sequence[Trial]) -> set[int]:
    """d_state of every scan of Mamba-2 in the proxies."""
    scans = [getattr(block.mixer, "mamba", block.mixer) for trial in trials for block in trial.proxy.blocks]
    return {scan.d_state for scan in scans if isinstance(scan, Mamba2)}


def where(trials: Sequence[Trial]) -> str:
    """How much of a difference lies on AR hits, and which arms have found how to copy."""
    lines = []
    for name in SCORED:
        these = of_settings(trials)[name]
        of = {arm.name: arm for arm in arms(these, ROWS)}
        loss, hits = (by_arm_of(these, of_value(q)) for q in ("loss", "ar_hits"))
        share = float(np.mean([t.values["ar_hits_share"] for t in these if t.state == "complete"]))
        low, high = of["intra 1:0"].key, of["Mamba-2 alone"].key
        gap, on_hits = loss[high] - loss[low], share * (hits[high] - hits[low])
        single = sorted((n for n in of if n.startswith(("1:12", "inter 1:12"))), key=lambda n: position(of[n]))
        lines.append(
            f"- `{name}`: {share:.1%} of the held-out tokens are AR hits, and {on_hits / gap:.0%} of the {gap:.2f} "
            "nats between Mamba-2 alone and parallel layers alone lie there. Loss on them with one layer of attention: "
            + ", ".join(f"{place(n)} {hits[of[n].key]:.2f}" for n in single)
            + f"; Mamba-2 alone {hits[high]:.2f}."
        )
    return "\n".join(lines)


def position(arm: Arm) -> int:
    return arm.trial.target.layout.index("A")


def place(name: str) -> str:
    return "at 7" if name == "inter 1:12" else name.removeprefix("1:12 ")


def told(trials: Sequence[Trial]) -> str:
    """Arms whose losses at 1B are not printed here, and those of their tables that stand above."""
    every = of_settings(trials)
    named = {a.key: a.name for a in arms(every["state 16"], ROWS)}
    again = {"attention alone": "2048:0", "Mamba-2 alone": "0:2048"}
    again |= {f"intra {ratio}": f"{ratio} scatter" for ratio in ("1:1", "1:3", "1:5")}
    new = {
        "split": [name for name in SPLIT if name not in again.values()],
        "positions": [name for name in POSITIONS if name not in again.values()],
    }
    rows: list[tuple[str, str, float, float]] = []
    for setting in ("split", "positions", "state 16"):
        these = every[setting]
        loss, hits = (by_arm_of(these, of_value(q)) for q in ("loss", "ar_hits"))
        layouts = {trial.target.id: trial.proxy.layout for trial in these}
        names = dict(zip(layouts, new[setting], strict=True)) if setting in new else named
        for key, layout in layouts.items():
            if setting in new or names[key] in again:
                rows.append((again.get(names[key], names[key]), layout, loss[key], hits[key]))
    lines = ["| arm | layers | all text | AR hits |", "|---" * 4 + "|"]
    for name, layout, whole, hit in sorted(rows, key=lambda row: row[2]):
        lines.append(f"| {name} | `{layout}` | {whole:.4f} | {hit:.4f} |")
    return "\n".join(lines)


def claims(trials: Sequence[Trial]) -> str:
    """Attention in front against the middle, windows, and the difference from the setting before."""
    every = of_settings(trials)
    of = {arm.name: arm for arm in arms(every["state 16"], ROWS)}
    printed = {name: arm.printed[0] or 0.0 for name, arm in of.items()}
    pairs = {"1:1": "inter 1:1", "1:3": "inter 1:3", "1:5": "inter 1:5"}
    lines = []
    gaps, places = {}, {}
    windows = ("window 1:1", "window 1:3", "window 1:5")
    for name in (*SCORED, "the paper, 1B"):
        loss = by_arm_of(every[name], of_value("loss")) if name in every else {of[n].key: v for n, v in printed.items()}
        gaps[name] = [loss[of[f"{ratio} front"].key] - loss[of[middle].key] for ratio, middle in pairs.items()]
        order = sorted(loss, key=loss.__getitem__)
        places[name] = [order.index(of[window].key) + 1 for window in (*windows, "1:5 front")]
    lines.append("| | " + " | ".join(f"front less middle, {ratio}" for ratio in pairs) + " | ")
    lines[0] += " | ".join(f"place of {arm}, of {len(of)}" for arm in (*windows, "1:5 front")) + " |"
    lines.append("|---" * 8 + "|")
    for name in gaps:
        cells = [f"{gap:+.3f}" for gap in gaps[name]] + [str(place) for place in places[name]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", gain(trials)])


def gain(trials: Sequence[Trial], draws: int = 4000) -> str:
    """How much nearer to 1B than the score of three seeds at width 64, resampling arms for both alike."""
    these = of_settings(trials)["state 16"]
    of = arms(these, ROWS)
    known, _ = paper_joint.both_tables()
    ours, theirs = score(these), paper_score.composite(known)
    truth = np.array([arm.printed[0] for arm in of])
    one, other = (np.array([values[arm.key] for arm in of]) for values in (ours, theirs))
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        i = rng.integers(len(of), size=len(of))
        found.append(kendalltau(one[i], truth[i]).statistic - kendalltau(other[i], truth[i]).statistic)
    middle = kendalltau(one, truth).statistic - kendalltau(other, truth).statistic
    low, high = np.nanquantile(found, [0.025, 0.975])
    return (
        f"Tau of the score of `state 16` less that of width 64, manuals and tasks at three seeds: {middle:+.2f} "
        f"[{low:+.2f}, {high:+.2f}], the same arms resampled for both."
    )


def line_check(trials: Sequence[Trial]) -> str:
    """A line from our loss to that at 1B, fitted on the ratio table, moved to the placement table's own arms as
    `paper_predict.check` moves the line of the published predictions."""
    these = of_settings(trials)["state 16"]
    of, loss = {arm.name: arm for arm in arms(these, ROWS)}, by_arm_of(these, of_value("loss"))
    x = {name: np.array([1.0, loss[arm.key]]) for name, arm in of.items()}
    fitted = [n for n, arm in of.items() if n in {row[0] for row in RATIO} and set("MH") & set(arm.trial.proxy.layout)]
    line = Line.fitted(np.array([x[n] for n in fitted]), np.array([of[n].printed[0] for n in fitted]))
    errors, inside = [], 0
    for name, arm in of.items():
        anchor, truth = f"inter {name.split()[0]}", arm.printed[0]
        if name not in fitted and anchor in of and truth is not None:
            guess, half = line.moved(of[anchor].printed[0] or 0.0, x[name], x[anchor])
            errors.append(guess - truth)
            inside += abs(guess - truth) <= half
    return (
        f"A line from this loss to that at 1B, fitted on the ratio table, misses the {len(errors)} other arms of the "
        f"placement table by {np.sqrt(np.mean(np.square(errors))):.4f} nats (root mean square; {inside} inside their "
        "95% intervals). The line behind the published predictions: " + check().split(": ", 1)[1]
    )


def presets(trials: Sequence[Trial]) -> str:
    """What the proxies by name agree with, by their loss: one seed is what a search has."""
    every = of_settings(trials)
    of = arms(every["state 16"], ROWS)
    lines = [
        "| `proxy` | tokens | GPU-seconds a training, packed | tau of loss with 1B, each seed | mean of the seeds |"
    ]
    lines.append("|---" * 5 + "|")
    for name, (setting, share) in PRESETS.items():
        these, value = every[setting], of_value("loss") if share == 1 else after(share)
        seeds = sorted({trial.seed for trial in these})
        single = [tau(by_arm_of(these, value, seed), of) for seed in seeds]
        lines.append(
            f"| `{name}` | {these[0].tokens * share / 1e6:.0f}M | {run().GPU_SECONDS[setting] * share:.1f} | "
            f"{', '.join(f'{found.value:.2f}' for found in single if found)} | {tau(by_arm_of(these, value), of)} |"
        )
    early = [tau(by_arm_of(every["state 16"], after(0.25), seed), of) for seed in (0, 1, None)]
    told = [f"{found.value:.2f}" for found in early[:2] if found]
    lines += ["", f"The first 9M tokens of `state 16` agree by {' and '.join(told)}, their mean by {early[2]}."]
    ours = {name: [by_arm_of(every[name], of_value("loss"), seed) for seed in (0, 1)] for name in BY_PREFIX}
    alike = [f"of `{name}` {alike_by(*two):.2f}" for name, two in ours.items()]
    one, other = (by_arm_of(every[name], of_value("loss")) for name in BY_PREFIX)
    lines += [
        "",
        f"Two seeds order the arms alike by tau {' and '.join(alike)}, the two settings by {alike_by(one, other):.2f}.",
    ]
    return "\n".join(lines)


def alike_by(one: Values, other: Values) -> float:
    return float(kendalltau([one[key] for key in one], [other[key] for key in one]).statistic)


def rates(trials: Sequence[Trial]) -> str:
    """What another rate or batch does to three arms early on, on the first third of the text."""
    del trials
    found: dict[tuple[int, int, float], dict[str, Trial]] = {}
    for trial in read_trials(HERE / "rates.parquet"):
        (state,), rate = states([trial]), trial.budget.learning_rate or 0.0
        found.setdefault((state, trial.budget.batch, rate), {})[trial.target.layout] = trial
    names = {"MMMAMMMAMMMMM": "inter 1:5", "MMMAMMMMMMAMM": "1:5 end", "MMMAMMMMMMMMM": "1:12 at 4"}
    head = ["state", "batch", "learning rate", *(f"{name}: all text" for name in names.values())]
    head += [f"{name}: AR hits" for name in names.values()]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (state, batch, rate), of in sorted(found.items()):
        values = [f"{of[layout].values[q]:.3f}" for q in ("loss", "ar_hits") for layout in names]
        lines.append(f"| {state} | {batch} | {rate:g} | {' | '.join(values)} |")
    return "\n".join(lines)


def seeds_of(trials: Sequence[Trial], name: str) -> str:
    n = len({t.seed for t in of_settings(trials)[name]})
    return "n = 1 seed, unproven" if n == 1 else f"n = {n} seeds"


def verdict(trials: Sequence[Trial]) -> str:
    every = of_settings(trials)
    of = arms(every["state 16"], ROWS)
    found, theirs = tau(score(every["state 16"]), of), tau({a.key: a.printed[1] for a in of if a.printed[1]}, of)
    assert found is not None
    others = [tau(score(every[name]), of) for name in SCORED[1:]]
    return (
        f"goal of {GOAL} {'reached' if found.value >= GOAL else 'not reached'}: the score orders placement and ratio "
        f"with tau {found}, at {minutes('state 16', len(of)):.1f} GPU-minutes ({seeds_of(trials, 'state 16')}); half "
        f"of the tokens, a larger state, four times its rate and repeated text do with "
        f"{', '.join(f'{other.value:.2f}' for other in others if other)}; the paper's own 350M with {theirs}"
    )


TABLES = {
    "setting": setting,
    "arms": by_arm,
    "agreement": agreement,
    "where": where,
    "claims": claims,
    "told": told,
    "line": line_check,
    "presets": presets,
    "rates": rates,
    "verdict": verdict,
}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
