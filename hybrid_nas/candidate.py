"""A Candidate: one design with all its trials, and what they say of it together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from hybrid_nas.cost import Cost
from hybrid_nas.noise import Noise, Trainings, proxy_id
from hybrid_nas.trial import Trial

SURE = 0.95
UNLIKELY = 0.05


@dataclass(frozen=True)
class Estimate:
    """Mean of a trained quantity over `n` seeds, and its 95% interval where noise could be measured."""

    mean: float
    n: int
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class Candidate:
    """One design, all its trials together. `number` is that of its first complete search trial.

    `trials` are the numbers of its own complete trials; `seeds` those of the trainings it rests on, which it may
    share with the designs of `coincides_with` (first trial numbers) that are the same model at the proxy scale.
    `probability` is that of being on the front, None where noise is unknown.
    """

    key: str
    number: int
    trials: tuple[int, ...]
    design: dict[str, Any]
    layout: str
    proxy_layout: str
    cost: Cost
    estimates: dict[str, Estimate]
    seeds: tuple[int, ...]
    devices: tuple[str, ...]
    implementations: dict[str, str]
    coincides_with: tuple[int, ...]
    member: bool
    probability: float | None

    def value(self, name: str) -> float:
        return self.estimates[name].mean if name in self.estimates else self.cost.value(name)

    @property
    def sure(self) -> bool | None:
        """Whether being (or not being) on the front stands outside the noise; None where noise is unknown."""
        if self.probability is None:
            return None
        return self.probability >= SURE if self.member else self.probability < UNLIKELY

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "number": self.number,
            "trials": list(self.trials),
            "layout": self.layout,
            "proxy_layout": self.proxy_layout,
            "design": self.design,
            "values": {name: estimate.to_dict() for name, estimate in self.estimates.items()},
            "cost": self.cost.to_dict(),
            "seeds": list(self.seeds),
            "devices": list(self.devices),
            "implementations": self.implementations,
            "coincides_with": list(self.coincides_with),
            "probability": self.probability,
            "sure": self.sure,
        }


def candidates_of(complete: list[Trial], values: dict[str, Trainings], noise: dict[str, Noise]) -> list[Candidate]:
    """One candidate a key, membership still open."""
    groups: dict[str, list[Trial]] = {}
    for trial in sorted(complete, key=lambda t: (t.replicate_of is not None, t.number)):
        groups.setdefault(trial.key, []).append(trial)
    by_proxy: dict[str, list[int]] = {}
    for group in groups.values():
        by_proxy.setdefault(proxy_id(group[0]), []).append(group[0].number)
    candidates = []
    for key, group in groups.items():
        proxy, first = proxy_id(group[0]), group[0]
        estimates = {}
        for name, table in values.items():
            if proxy in table:
                n = len(table[proxy])
                mean = math.fsum(table[proxy].values()) / n
                low, high = noise[name].interval(mean, n) or (None, None)
                estimates[name] = Estimate(mean, n, low, high)
        candidates.append(
            Candidate(
                key=key,
                number=first.number,
                trials=tuple(sorted(t.number for t in group)),
                design=first.design.to_dict(),
                layout=first.layout,
                proxy_layout=first.proxy.layout,
                cost=first.cost,
                estimates=estimates,
                seeds=tuple(sorted({seed for table in values.values() for seed in table.get(proxy, ())})),
                devices=tuple(sorted({t.device for t in group})),
                implementations=_implementations(group),
                coincides_with=tuple(sorted(n for n in by_proxy[proxy] if n != first.number)),
                member=False,
                probability=None,
            )
        )
    return sorted(candidates, key=lambda c: c.number)


def _implementations(group: list[Trial]) -> dict[str, str]:
    """Operation -> implementation that ran; several where the trials of a design differ, which a reader must see."""
    ran: dict[str, set[str]] = {}
    for trial in group:
        for operation, implementation in trial.implementations.items():
            ran.setdefault(operation, set()).add(implementation)
    return {operation: " and ".join(sorted(names)) for operation, names in sorted(ran.items())}
