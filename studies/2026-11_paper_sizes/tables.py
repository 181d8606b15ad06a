"""Compute the README's tables from trials.parquet and write them between the marker comments; no training.

python tables.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from hybrid_nas.cost import params_nonembedding
from hybrid_nas.extrapolation import Check, Measured, fit, left_out
from hybrid_nas.rank import kendall
from hybrid_nas.trial import Trial, read_trials

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import paper_predict  # noqa: E402
from markers import write  # noqa: E402

TOKENS_AT_1B = 60e9
COOLED = 0.8
"""Marks past this share of the tokens have begun to cool down and are left out of the law."""


def printed() -> dict[str, tuple[str, float]]:
    """(name, loss at 1B) by the id of the model there."""
    found: dict[str, tuple[str, float]] = {}
    for table in ("ratio", "placement"):
        for arm in paper_predict.printed(table)[1]:
            if arm.printed[0] is not None:
                found[arm.key] = arm.name, arm.printed[0]
    return found


def by_arm(trials: Sequence[Trial]) -> dict[str, dict[int, Trial]]:
    """Id of the arm at 1B -> width -> its training."""
    found: dict[str, dict[int, Trial]] = {}
    for trial in trials:
        found.setdefault(trial.target.id, {})[trial.proxy.width] = trial
    return found


def measured(trials: dict[int, Trial]) -> list[Measured]:
    return [
        Measured(params_nonembedding(trial.proxy), point.tokens, point.loss)
        for trial in trials.values()
        for point in trial.curve
        if point.validation and point.tokens < COOLED * trial.tokens
    ]


@lru_cache(maxsize=4096)
def checks(points: tuple[Measured, ...]) -> list[Check]:
    return left_out(points)


def setting(trials: Sequence[Trial]) -> str:
    sizes = {w: [params_nonembedding(t.proxy) for t in trials if t.proxy.width == w] for w in widths(trials)}
    told = ", ".join(f"{w} ({min(s) / 1e6:.2f} to {max(s) / 1e6:.2f} million)" for w, s in sizes.items())
    return (
        f"{len(trials)} trials, {sum(t.state != 'complete' for t in trials)} failed, one seed: "
        f"{len(by_arm(trials))} arms at widths {told} of non-embedding parameters, {trials[0].tokens:,} bytes in "
        f"batches of {trials[0].budget.batch} sequences of 1,024; {' and '.join(sorted({t.device for t in trials}))}."
    )


def widths(trials: Sequence[Trial]) -> list[int]:
    return sorted({t.proxy.width for t in trials})


def losses(trials: Sequence[Trial]) -> str:
    names, sizes = printed(), widths(trials)
    lines = [f"| arm | 1B | {' | '.join(f'width {w}' for w in sizes)} |", "|---" * (2 + len(sizes)) + "|"]
    for key, of in by_arm(trials).items():
        name, loss = names[key]
        cells = [f"{of[width].values['loss']:.4f}" for width in sizes]
        lines.append(f"| {name} | {loss:.3f} | {' | '.join(cells)} |")
    lines.append(f"| tau with 1B | 1 | {' | '.join(str(order(trials, w)) for w in sizes)} |")
    return "\n".join(lines)


def order(trials: Sequence[Trial], width: int) -> object:
    names, arms = printed(), by_arm(trials)
    return kendall([of[width].values["loss"] for of in arms.values()], [names[key][1] for key in arms])


def law(trials: Sequence[Trial]) -> str:
    """Width 128 from the smaller ones, and 1B at 60 billion bytes from all."""
    names, largest, arms = printed(), widths(trials)[-1], by_arm(trials)
    lines = ["| arm | measured, width 128, 6M bytes | foretold from 32, 48 and 64 [95%] | law at 1B, 60G bytes [95%] |"]
    lines.append("|---" * 4 + "|")
    ends, forecasts, every = [], [], []
    for key, of in arms.items():
        found = checks(tuple(measured(of)))
        every += found
        end = max(found, key=lambda check: check.measured.tokens)
        far = fit(measured(of)).forecast(params_nonembedding(of[largest].target), TOKENS_AT_1B)
        ends.append(end)
        forecasts.append(far.loss)
        lines.append(
            f"| {names[key][0]} | {end.measured.loss:.4f} | {end.forecast.loss:.4f} [{end.forecast.low:.4f}, "
            f"{end.forecast.high:.4f}] | {far.loss:.3f} [{far.low:.3f}, {far.high:.3f}] |"
        )
    errors = np.array([check.forecast.loss - check.measured.loss for check in every])
    here = kendall([end.forecast.loss for end in ends], [end.measured.loss for end in ends])
    same_mark = [m.loss for of in arms.values() for m in measured({64: of[64]}) if m.tokens == ends[0].measured.tokens]
    before = kendall(same_mark, [end.measured.loss for end in ends])
    far_order = kendall(forecasts, [names[key][1] for key in arms])
    told = (
        f"The largest size left out: error {np.sqrt((errors**2).mean()):.3f} nats per byte (root mean square over "
        f"{len(every)} marks of {len(arms)} arms), {sum(c.inside for c in every)} of {len(every)} inside their 95% "
        f"intervals. Order of the arms at width 128: foretold with measured tau {here}; the order at width 64 with "
        f"it, without a law, {before}. The law's order at 1B with the printed one: {far_order}."
    )
    return "\n".join([*lines, "", told])


def verdict(trials: Sequence[Trial]) -> str:
    every = [check for of in by_arm(trials).values() for check in checks(tuple(measured(of)))]
    errors = np.array([check.forecast.loss - check.measured.loss for check in every])
    return (
        f"width 128 is foretold from 32, 48 and 64 within {np.sqrt((errors**2).mean()):.3f} nats per byte (root mean "
        f"square, {sum(c.inside for c in every)} of {len(every)} inside their 95% intervals), which does not tell "
        "these arms apart (n = 1 seed, unproven)"
    )


TABLES = {"setting": setting, "losses": losses, "law": law, "verdict": verdict}


if __name__ == "__main__":
    write(HERE, read_trials(HERE / "trials.parquet"), TABLES)
