"""Final losses of trials that were stopped early, predicted from their last held-out loss, for effects alone.

Whether a trial stops depends on losses at rungs and on costs, so given its last rung its final loss is missing at
random. It is predicted by least squares of final on rung loss over the trials that went on, and enters the effects
with the prediction's own variance beside the noise. Where rungs do not foretell the end well (R² below `FORETELLS`)
nothing is predicted: an effect that shows late in training would be understated (tests/test_predicted.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hybrid_nas.noise import proxy_id
from hybrid_nas.trial import Trial

FORETELLS = 0.8
MIN_COMPLETE = 5
QUANTITY = "loss"


@dataclass(frozen=True)
class Predictions:
    """Proxy id -> (seed, value, variance). `sd` is the residual deviation of the regressions, the largest of them."""

    by_proxy: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    sd: float | None = None

    @property
    def statement(self) -> str:
        """What the recipe says of them; empty where there are none."""
        n = len(self.by_proxy)
        if not n or self.sd is None:
            return ""
        return (
            f"Effects on loss include {n} training{'s' if n > 1 else ''} stopped early, with the final loss that the "
            f"last held-out loss foretells (residual deviation {self.sd:.4f} nats/token, added to the noise); effects "
            "that show only late in training are understated by these."
        )


def predicted(trials: Iterable[Trial]) -> Predictions:
    """Predictions for search trials that were stopped and whose model no other trial trained to the end."""
    trials = [trial for trial in trials if trial.replicate_of is None and trial.shared_with is None]
    complete = [trial for trial in trials if trial.state == "complete" and QUANTITY in trial.values]
    trained = {proxy_id(trial) for trial in complete}
    ended = [(_held_out(trial), trial.values[QUANTITY]) for trial in complete]
    lines: dict[int, Line | None] = {}
    found: dict[str, tuple[int, float, float]] = {}
    worst = 0.0
    for trial in sorted(trials, key=lambda trial: trial.number):
        held_out = _held_out(trial) if trial.state == "stopped" else []
        if not held_out or not math.isfinite(held_out[-1]) or proxy_id(trial) in trained:
            continue
        rung = len(held_out) - 1
        if rung not in lines:
            lines[rung] = Line.of([(losses[rung], value) for losses, value in ended if len(losses) > rung + 1])
        line = lines[rung]
        if line is not None:
            found[proxy_id(trial)] = trial.seed, *line.at(held_out[-1])
            worst = max(worst, math.sqrt(line.residual))
    return Predictions(found, worst if found else None)


@dataclass(frozen=True)
class Line:
    """Least squares of final losses on those of one rung."""

    slope: float
    x: float
    y: float
    around: float
    residual: float
    n: int

    @classmethod
    def of(cls, pairs: list[tuple[float, float]]) -> Line | None:
        """None where the rung does not foretell the end."""
        import numpy as np

        if len(pairs) < MIN_COMPLETE:
            return None
        x, y = np.array(pairs).T
        around, total = float(((x - x.mean()) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
        if around == 0 or total == 0:
            return None
        slope = float((x - x.mean()) @ (y - y.mean())) / around
        squares = float(((y - y.mean() - slope * (x - x.mean())) ** 2).sum())
        if 1 - squares / total < FORETELLS:
            return None
        return cls(slope, float(x.mean()), float(y.mean()), around, squares / (len(x) - 2), len(x))

    def at(self, loss: float) -> tuple[float, float]:
        """What a loss at the rung foretells, and the variance of that."""
        off = loss - self.x
        return self.y + self.slope * off, self.residual * (1 + 1 / self.n + off**2 / self.around)


def _held_out(trial: Trial) -> list[float]:
    return [point.loss for point in trial.curve if point.validation]
