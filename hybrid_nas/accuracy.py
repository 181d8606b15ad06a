"""The noise of an accuracy, which depends on its level: near 0 and 1 little moves, between them a seed decides much.

Deviations are taken of the log odds, so that intervals stay inside [0, 1], and pooled within three levels: a mean over
seeds by the level of that mean; a single training by its own, with the deviation of every design that was seen at that
level, since one seed near 1 may be the lucky one of a design that fails at others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hybrid_nas.student import student

LEVELS = (0.1, 0.9)
NAMES = ("below 0.1", "from 0.1 to 0.9", "above 0.9")
CLAMP = 0.005  # accuracies nearer to 0 or 1 are told apart by too few symbols to have log odds
MIN_DF = 3  # a level with fewer takes the deviation of all levels together


def log_odds(accuracy: float) -> float:
    """
    >>> log_odds(0.5), round(log_odds(1.0), 3), round(log_odds(0.1) + log_odds(0.9), 12)
    (0.0, 5.293, 0.0)
    """
    inside = min(max(accuracy, CLAMP), 1 - CLAMP)
    return math.log(inside / (1 - inside))


def accuracy(odds: float) -> float:
    """What `log_odds` came from, but for its clamp."""
    return 1 / (1 + math.exp(-odds)) if odds > 0 else math.exp(odds) / (1 + math.exp(odds))


def level(value: float) -> int:
    """
    >>> [level(value) for value in (0.02, 0.5, 0.95)]
    [0, 1, 2]
    """
    return 0 if value < LEVELS[0] else 2 if value > LEVELS[1] else 1


def possible(value: float, unit: str, most: float = 1.0) -> float:
    """A difference as far as it can be: two accuracies differ by no more than 1, and `most` is what a difference of
    differences can be. Other units have no bounds.

    >>> possible(1.07, "accuracy"), possible(-1.3, "accuracy", 2.0), possible(1.07, "nats/token")
    (1.0, -1.3, 1.07)
    """
    return max(-most, min(most, value)) if unit == "accuracy" else value


@dataclass(frozen=True)
class AccuracyNoise:
    """(deviation of the log odds of one training, degrees of freedom) by level: of `means` over several seeds, and of
    `single` trainings."""

    means: tuple[tuple[float, int], ...]
    single: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, repeated: Iterable[Iterable[float]]) -> AccuracyNoise:
        """From the accuracies of each proxy that was trained at two seeds or more."""
        groups = [list(values) for values in repeated]
        squares = [_squares([log_odds(value) for value in group]) for group in groups]
        degrees = [len(group) - 1 for group in groups]
        whole = math.sqrt(math.fsum(squares) / sum(degrees)), sum(degrees)
        means, single = [], []
        for at in range(len(NAMES)):
            weights = [float(level(math.fsum(group) / len(group)) == at) for group in groups]
            means.append(_pooled(squares, degrees, weights) or whole)
            shares = [sum(level(value) == at for value in group) / len(group) for group in groups]
            single.append(_pooled(squares, degrees, shares) or whole)
        return cls(tuple(means), tuple(single))

    def spread(self, mean: float, n: int) -> tuple[float, int]:
        """Deviation of the log odds of a mean over `n` seeds, and its degrees of freedom."""
        sd, df = (self.single if n == 1 else self.means)[level(mean)]
        return sd / math.sqrt(n), df

    def interval(self, mean: float, n: int) -> tuple[float, float]:
        """The 95% interval of a mean over `n` seeds."""
        spread, df = self.spread(mean, n)
        half, at = student(df) * spread, log_odds(mean)
        return min(mean, accuracy(at - half)), max(mean, accuracy(at + half))

    def apart(self, one: float, other: float) -> bool:
        """Whether two trainings of different seeds differ beyond the noise at 95%."""
        (a, df_a), (b, df_b) = self.spread(one, 1), self.spread(other, 1)
        return abs(log_odds(one) - log_odds(other)) > student(min(df_a, df_b)) * math.hypot(a, b)

    def to_dict(self) -> list[dict[str, Any]]:
        return [
            {"level": name, "log_odds_sd": mean[0], "df": mean[1], "single_log_odds_sd": one[0], "single_df": one[1]}
            for name, mean, one in zip(NAMES, self.means, self.single, strict=True)
        ]


def _squares(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)


def _pooled(squares: list[float], degrees: list[int], weights: list[float]) -> tuple[float, int] | None:
    df = math.fsum(w * d for w, d in zip(weights, degrees, strict=True))
    if df < MIN_DF:
        return None
    return math.sqrt(math.fsum(w * s for w, s in zip(weights, squares, strict=True)) / df), int(df)
