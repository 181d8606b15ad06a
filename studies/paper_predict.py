"""Losses at 1B predicted from the proxies: a line in the loss on text and the recall, fitted on the arms whose losses
are printed, and moved to an arm of the same family whose loss is printed elsewhere.

Attention alone and stacks with windows are left out of the fit: their text loss is far outside that of all the others.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paper_score import Arm, arms, at
from paper_truth import PLACEMENT, POSITIONS, RATIO, SPLIT
from scipy.stats import t as student

from hybrid_nas.trial import Trial, read_trials

STUDIES = Path(__file__).parent
RUN_TO_RUN = 0.006
"""95% half-width of a printed loss as a prediction of the same model: about twice the 0.003 by which two runs of one
model at 350M differ in [arXiv:2510.04800, Tables 10 and 17]."""
ANCHORS = {
    # arm -> the loss that another table prints for the same model (Tables 9 and 18)
    "split": {"2048:0": 2.750, "1152:1152": 2.715, "0:2048": 2.758},
    "positions": {"1:1 scatter": 2.720, "1:3 scatter": 2.724, "1:5 scatter": 2.728},
}
FAMILIES = {  # arm -> the anchor that it is moved to
    "split": dict.fromkeys(SPLIT, "1152:1152"),
    "positions": {arm: f"{arm.split()[0]} scatter" for arm in POSITIONS},
}
WITHIN_PLACEMENT = {"1:1": "1:1 end", "1:3": "1:3 middle", "1:5": "1:5 middle", "1:12": "1:12 at 7"}
"""The arms of the placement table to which its others are moved, to check: those that the ratio table has too."""


@dataclass(frozen=True)
class Line:
    """loss = coefficients . (1, text, recall), with the residual's standard deviation and what intervals need."""

    coefficients: np.ndarray
    residual: float
    inverse: np.ndarray
    freedom: int

    @classmethod
    def fitted(cls, x: np.ndarray, y: np.ndarray) -> Line:
        coefficients, *_ = np.linalg.lstsq(x, y, rcond=None)
        freedom = len(y) - x.shape[1]
        residual = float(np.sqrt(((y - x @ coefficients) ** 2).sum() / freedom))
        return cls(coefficients, residual, np.linalg.inv(x.T @ x), freedom)

    def moved(self, anchor: float, here: np.ndarray, there: np.ndarray) -> tuple[float, float]:
        """(loss, 95% half-width) of the arm at `here`, from the printed loss `anchor` of the arm at `there`."""
        change = here - there
        spread = self.residual * np.sqrt(1 + change @ self.inverse @ change)
        return anchor + float(self.coefficients @ change), float(student.ppf(0.975, self.freedom) * spread)


def points(trials: Sequence[Trial], of: Sequence[Arm]) -> dict[str, np.ndarray]:
    """(1, loss on text, recall) by name of the arm, means over seeds."""
    text, recall = at(trials, "bytes"), at(trials, "tasks", 1.0, "recall")
    return {arm.name: np.array([1.0, text[arm.key], -recall[arm.key]]) for arm in of if arm.key in recall}


def printed(table: str) -> tuple[list[Trial], list[Arm]]:
    trials = read_trials(STUDIES / f"2026-11_paper_{table}" / "trials.parquet")
    return trials, arms(trials, {"placement": PLACEMENT, "ratio": RATIO}[table])


def fit(tables: Sequence[str]) -> Line:
    rows: dict[str, tuple[np.ndarray, float]] = {}
    for table in tables:
        trials, of = printed(table)
        x = points(trials, of)
        for arm in of:
            if arm.printed[0] is not None and set("MH") & set(arm.trial.proxy.layout):
                rows[arm.key] = x[arm.name], arm.printed[0]
    return Line.fitted(np.array([x for x, _ in rows.values()]), np.array([y for _, y in rows.values()]))


@dataclass(frozen=True)
class Prediction:
    arm: str
    loss: float
    half: float


def predicted(table: str, trials: Sequence[Trial]) -> list[Prediction]:
    names = SPLIT if table == "split" else POSITIONS
    x, line = points(trials, arms(trials, [(name, None, None) for name in names])), fit(["placement", "ratio"])
    found = []
    for name in names:
        if name in ANCHORS[table]:
            found.append(Prediction(name, ANCHORS[table][name], RUN_TO_RUN))
            continue
        anchor = FAMILIES[table][name]
        found.append(Prediction(name, *line.moved(ANCHORS[table][anchor], x[name], x[anchor])))
    return found


def check() -> str:
    """The same prediction where the answer is printed: the line from the ratio table alone, for the arms of the
    placement table that the ratio table does not have."""
    line, (trials, of) = fit(["ratio"]), printed("placement")
    x, truth = points(trials, of), {arm.name: arm.printed[0] for arm in of}
    errors, naive, inside = [], [], 0
    for name, loss in truth.items():
        anchor = WITHIN_PLACEMENT.get(name.split()[0])
        if anchor is None or name == anchor or loss is None:
            continue
        start = truth[anchor]
        assert start is not None
        guess, half = line.moved(start, x[name], x[anchor])
        errors.append(guess - loss)
        naive.append(start - loss)
        inside += abs(guess - loss) <= half
    ours, none = (np.sqrt(np.mean(np.square(found))) for found in (errors, naive))
    return (
        f"Checked on the placement table with a line from the ratio table alone: {len(errors)} arms, error "
        f"{ours:.4f} nats (root mean square; {none:.4f} if every arm is given the loss "
        f"of its family's anchor), {inside} of {len(errors)} inside their 95% intervals."
    )


def table_text(table: str, trials: Sequence[Trial]) -> str:
    names = SPLIT if table == "split" else POSITIONS
    of = arms(trials, [(name, None, None) for name in names])
    x = points(trials, of)
    layouts = {arm.name: arm.trial.proxy.layout for arm in of}
    lines = ["| arm | layers | text, bytes | recall | predicted at 1B | 95% | from |", "|---" * 7 + "|"]
    for guess in predicted(table, trials):
        source = (
            "printed for the same model" if guess.arm in ANCHORS[table] else f"moved from {FAMILIES[table][guess.arm]}"
        )
        _, text, recall = x[guess.arm]
        lines.append(
            f"| {guess.arm} | `{layouts[guess.arm]}` | {text:.4f} | {recall:.3f} | {guess.loss:.3f} | "
            f"± {guess.half:.3f} | {source} |"
        )
    return "\n".join(lines)


def order_text(table: str, trials: Sequence[Trial]) -> str:
    guesses = sorted(predicted(table, trials), key=lambda g: g.loss)
    return " < ".join(f"{g.arm} ({g.loss:.3f})" for g in guesses)


def are_apart(one: Prediction, other: Prediction) -> bool:
    """Whether the losses differ by more than the 95% half-width of their difference, with independent errors."""
    return bool(abs(one.loss - other.loss) > np.hypot(one.half, other.half))


def neighbours(table: str, trials: Sequence[Trial]) -> list[tuple[Prediction, Prediction]]:
    """Those in the predicted order."""
    return list(itertools.pairwise(sorted(predicted(table, trials), key=lambda g: g.loss)))


def told_apart(table: str, trials: Sequence[Trial]) -> str:
    """How many neighbours of the predicted order are told apart."""
    beside = neighbours(table, trials)
    return f"{sum(are_apart(*pair) for pair in beside)} of {len(beside)} neighbours told apart"


def apart_text(table: str, trials: Sequence[Trial]) -> str:
    every = list(itertools.combinations(sorted(predicted(table, trials), key=lambda g: g.loss), 2))
    far = [f"{one.arm} and {other.arm}" for one, other in every if are_apart(one, other)]
    near = [f"{one.arm} and {other.arm}" for one, other in neighbours(table, trials) if are_apart(one, other)]
    return (
        "Two arms are told apart where their losses differ by more than the root of the sum of their squared "
        "half-widths. "
        f"Neighbours in this order that are: {', '.join(near) or 'none'}. Of all {len(every)} pairs {len(far)} are: "
        f"{'; '.join(far) or 'none'}."
    )


def write_csv(table: str, trials: Sequence[Trial], path: Path) -> None:
    path.write_text(csv_text(table, trials))


def csv_text(table: str, trials: Sequence[Trial]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["table", "arm", "predicted_loss", "ci95"])
    for guess in predicted(table, trials):
        writer.writerow([table, guess.arm, f"{guess.loss:.4f}", f"{guess.half:.4f}"])
    return out.getvalue()
