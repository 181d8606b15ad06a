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
            f"last held-out loss foretells (residual deviation {self.sd:.4f} nats/byte, added to the noise); effects "
            "that show only late in training are understated by these."
        )


def predicted(trials: Iterable[Trial]) -> Predictions:
    """Predictions for search trials that were stopped and whose model no other trial trained to the end."""
    import numpy as np

    trials = [trial for trial in trials if trial.replicate_of is None and trial.shared_with is None]
    complete = [trial for trial in trials if trial.state == "complete" and QUANTITY in trial.values]
    trained = {proxy_id(trial) for trial in complete}
    found: dict[str, tuple[int, float, float]] = {}
    worst = 0.0
    for trial in sorted(trials, key=lambda trial: trial.number):
        held_out = _held_out(trial)
        if trial.state != "stopped" or not held_out or proxy_id(trial) in trained:
            continue
        rung, last = len(held_out) - 1, held_out[-1]
        pairs = [
            (losses[rung], t.values[QUANTITY]) for t in complete if len(losses := _held_out(t)) > rung + 1
        ]  # fmt: skip
        if len(pairs) < MIN_COMPLETE or not math.isfinite(last):
            continue
        x, y = np.array(pairs).T
        around, total = float(((x - x.mean()) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
        if around == 0 or total == 0:
            continue
        slope = float((x - x.mean()) @ (y - y.mean())) / around
        squares = float(((y - y.mean() - slope * (x - x.mean())) ** 2).sum())
        if 1 - squares / total < FORETELLS:
            continue
        residual = squares / (len(x) - 2)
        variance = residual * (1 + 1 / len(x) + (last - float(x.mean())) ** 2 / around)
        found[proxy_id(trial)] = trial.seed, float(y.mean()) + slope * (last - float(x.mean())), variance
        worst = max(worst, math.sqrt(residual))
    return Predictions(found, worst if found else None)


def _held_out(trial: Trial) -> list[float]:
    return [point.loss for point in trial.curve if point.validation]
