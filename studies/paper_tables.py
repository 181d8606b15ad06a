"""What the README of each study of a paper's table shows, made from its trials."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paper_choose
import paper_joint
import paper_predict
from markers import Made
from paper_score import (
    arm_table,
    arms,
    at,
    baselines,
    composite,
    minutes,
    score_table,
    setting_text,
    tau,
)
from paper_study import SETTINGS, setting_of
from paper_truth import FUSION, PLACEMENT, RATIO

from hybrid_nas.cost import params_nonembedding
from hybrid_nas.extrapolation import Measured, left_out
from hybrid_nas.rank import kendall
from hybrid_nas.trial import Trial

GOAL = 0.79
ROWS = {"placement": PLACEMENT, "ratio": RATIO}
LEARNED = 0.5  # of the symbols that can be known


def seeds(trials: Sequence[Trial]) -> str:
    of = {s: len({t.seed for t in trials if setting_of(t) == s}) for s in ("bytes", "tasks")}
    if of["bytes"] == of["tasks"]:
        return "n = 1 seed, unproven" if of["bytes"] == 1 else f"n = {of['bytes']} seeds"
    return f"n = {of['bytes']} seed of text, {of['tasks']} of the tasks; unproven"


def verdict(table: str) -> Made:
    def made(trials: Sequence[Trial]) -> str:
        of = arms(trials, ROWS[table])
        ours, theirs = composite(trials), tau({a.key: a.printed[1] for a in of if a.printed[1]}, of)
        found = tau(ours, of)
        assert found is not None
        says = "reached" if found.value >= GOAL else "not reached"
        cost = (minutes("bytes") + minutes("tasks")) * len(of)
        return (
            f"goal of {GOAL} {says}: the composite of text and recall orders the arms with tau {found}, at {cost:.1f} "
            f"GPU-minutes; the paper's own 350M with {theirs} ({seeds(trials)})"
        )

    return made


def placement_claims(trials: Sequence[Trial]) -> str:
    """Which places learned to recall."""
    recall = {arm.name: -at(trials, "tasks", 1.0, "recall")[arm.key] for arm in arms(trials, PLACEMENT)}
    single = {name.split()[-1]: value for name, value in recall.items() if name.startswith("1:12")}
    yes = [place for place, value in single.items() if value > LEARNED]
    no = [place for place, value in single.items() if value <= LEARNED]
    front = [n for n in ("1:3 front", "1:5 front") if recall[n] <= LEARNED]
    return (
        f"One attention layer of 13 learned the tasks (recall above {LEARNED}) at {', '.join(yes)} and not at "
        f"{', '.join(no)}; with three or two layers, the first of them in front: {len(front)} of 2 did not learn."
    )


def ratio_claims(trials: Sequence[Trial]) -> str:
    """Intra against inter at each ratio, on text."""
    text = {arm.name: at(trials, "bytes")[arm.key] for arm in arms(trials, RATIO)}
    gaps = {r: text[f"intra {r}"] - text[f"inter {r}"] for r in ("1:1", "1:3", "1:5", "1:12")}
    by_ratio = [kendall([text[f"{f} {r}"] for r in gaps], list(range(4))) for f in ("intra", "inter")]
    return (
        "Intra less inter on text, nats per byte: "
        + ", ".join(f"{ratio} {gap:+.4f}" for ratio, gap in gaps.items())
        + " (the paper: -0.005, -0.009, -0.007, -0.005 nats per token). Order of 1:1, 1:3, 1:5, 1:12, tau with the "
        f"paper's: intra {by_ratio[0].value:.2f}, inter {by_ratio[1].value:.2f}."
        if by_ratio[0] and by_ratio[1]
        else ""
    )


def choice(trials: Sequence[Trial]) -> str:
    del trials
    return paper_choose.table_text(*(paper_predict.printed(table) for table in ROWS))


def extrapolated(trials: Sequence[Trial]) -> str:
    """The last mark before the cool-down from the earlier ones, arm by arm: tokens left out, one size."""
    checks = []
    for trial in trials:
        if setting_of(trial) == "bytes" and trial.seed == 0:
            marks = [p for p in trial.curve if p.validation and 0.05 < p.tokens / trial.tokens < 0.8]
            size = params_nonembedding(trial.proxy)
            checks += left_out([Measured(size, mark.tokens, mark.loss) for mark in marks])
    errors = np.array([check.forecast.loss - check.measured.loss for check in checks])
    half = np.mean([check.forecast.high - check.forecast.low for check in checks]) / 2
    order = kendall([c.forecast.loss for c in checks], [c.measured.loss for c in checks])
    return (
        f"Loss after 12 million bytes foretold from 1, 2, 4 and 8 million, for {len(checks)} arms: error "
        f"{np.sqrt((errors**2).mean()):.3f} nats per byte (root mean square), {sum(c.inside for c in checks)} inside "
        f"their 95% intervals, which are ± {half:.2f} wide on average; tau of foretold with measured {order}."
    )


def fusion_arms(trials: Sequence[Trial]) -> str:
    early, late = at(trials, "small"), at(trials, "bytes")
    lines = ["| arm | layers | 1B | 350M | text, 0.2M | text, 16M |", "|---" * 6 + "|"]
    for arm in arms(trials, FUSION):
        cells = ["-" if value is None else f"{value:.3f}" for value in arm.printed]
        cells += ["-" if arm.key not in of else f"{of[arm.key]:.4f}" for of in (early, late)]
        lines.append(f"| {arm.name} | {arm.trial.proxy.depth} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fusion_score(trials: Sequence[Trial]) -> str:
    of = arms(trials, FUSION)
    parallel = [
        arm for arm in of if arm.name not in ("attention alone", "Mamba-2 alone", "Diff-T", "Diff-M", "T/T add")
    ]
    lines = ["| order by | GPU-minutes, all arms | tau with 1B, all arms [95%] | parallel halves of both kinds alone |"]
    lines.append("|---" * 4 + "|")
    ours = {"text, 0.2M": ("none", at(trials, "small"))}
    for share in (0.25, 0.5, 1.0):
        values = at(trials, "bytes", share)
        cost = SETTINGS["bytes"]["gpu_seconds_of"]["fusion"] * len(values) / 60 * share
        ours[f"text, {16 * share:g}M"] = f"{cost:.1f}", values
    ours |= {name: ("-", values) for name, values in baselines(of).items()}
    for name, (spent, values) in ours.items():
        lines.append(f"| {name} | {spent} | {tau(values, of)} | {tau(values, parallel)} |")
    return "\n".join([*lines, "| random | 0 | 0 by definition | 0 by definition |"])


def fusion_claims(trials: Sequence[Trial]) -> str:
    """The effect of one choice, all else equal: ours beside theirs."""
    loss, of = at(trials, "bytes"), {arm.name: arm for arm in arms(trials, FUSION)}
    pairs = {
        "norm": ("norm", "no norm", ("none, add, S, J", "none, add, S, S", "none, difference, S, S")),
        "separate output projections": (
            "S, S",
            "S, J",
            ("norm, none, add, ", "norm, none, difference, ", "no norm, none, add, "),
        ),
    }
    lines = []
    for name, (one, other, rests) in pairs.items():
        gaps: list[tuple[float, float]] = []
        for rest in rests:
            a, b = (f"{x}, {rest}" if name == "norm" else f"{rest}{x}" for x in (one, other))
            a, b = (next(k for k in of if k.removesuffix(" (pick)") == x) for x in (a, b))
            theirs = [of[x].printed[0] or 0.0 for x in (a, b)]
            gaps.append((loss[of[a].key] - loss[of[b].key], theirs[0] - theirs[1]))
        ours, printed = np.array(gaps).T
        each = ", ".join(f"{gap:+.4f}" for gap in ours)
        lines.append(
            f"- {name}: {ours.mean():+.4f} nats per byte on average ({each}); "
            f"the paper {printed.mean():+.4f} nats per token"
        )
    return "\n".join(lines)


def fusion_verdict(trials: Sequence[Trial]) -> str:
    of, loss = arms(trials, FUSION), at(trials, "bytes")
    found = tau(loss, of)
    assert found is not None
    says = "reached" if found.value >= GOAL else "beyond this proxy"
    cost = SETTINGS["bytes"]["gpu_seconds_of"]["fusion"] * len(loss) / 60
    return (
        f"{says}: 16 million bytes order the arms with tau {found}, at {cost:.1f} GPU-minutes; a minute of one "
        f"CPU thread with {tau(at(trials, 'small'), of)} (goal {GOAL}; n = 1 seed, unproven)"
    )


def tables(table: str) -> dict[str, Made]:
    if table in ROWS:
        rows = ROWS[table]
        made: dict[str, Made] = {
            "setting": setting_text,
            "arms": lambda trials: arm_table(trials, arms(trials, rows)),
            "score": lambda trials: score_table(trials, arms(trials, rows)),
            "claims": placement_claims if table == "placement" else ratio_claims,
            "verdict": verdict(table),
        }
        if table == "ratio":
            made |= {
                "joint": paper_joint.joint,
                "seeds": paper_joint.by_seeds,
                "chosen": choice,
                "curve": paper_joint.curve,
                "presets": paper_joint.presets,
                "extrapolated": extrapolated,
            }
        return made
    if table == "fusion":
        return {
            "setting": lambda trials: setting_text(trials, "fusion"),
            "arms": fusion_arms,
            "score": fusion_score,
            "claims": fusion_claims,
            "verdict": fusion_verdict,
        }
    return {
        "setting": setting_text,
        "predictions": lambda trials: paper_predict.table_text(table, trials),
        "check": lambda trials: paper_predict.check(),
        "apart": lambda trials: paper_predict.apart_text(table, trials),
        "verdict": lambda trials: (
            f"predicted, best first: {paper_predict.order_text(table, trials)} "
            f"({paper_predict.told_apart(table, trials)}; {seeds(trials)})"
        ),
    }
