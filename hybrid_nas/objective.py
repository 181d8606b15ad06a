"""Objectives and constraints: what a search improves, and what a candidate must hold to be a candidate at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hybrid_nas.cost import Cost
from hybrid_nas.tasks import AR_HITS, BEYOND, NAMES

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Quantity:
    """A named number of a trial: its better direction, unit, whether it is bought by training, and its meaning.
    `chance` is what guessing reaches of an accuracy, None where it hangs on the task."""

    name: str
    direction: Direction
    unit: str
    trained: bool
    meaning: str
    chance: float | None = None


QUANTITIES: dict[str, Quantity] = {
    q.name: q
    for q in (
        Quantity("loss", "minimize", "nats/token", True, "held-out loss of the proxy, nats per token"),
        Quantity(
            "recall",
            "maximize",
            "accuracy",
            True,
            "share of a repeated string's bytes that the proxy gives back",
            1 / 64,
        ),
        Quantity("score", "maximize", "accuracy", True, "mean over the budget's tasks and probes"),
        *(Quantity(name, "maximize", "accuracy", True, meaning) for name, meaning in NAMES.items()),
        Quantity(BEYOND, "minimize", "nats/token", True, "loss on text past the training length"),
        Quantity(
            AR_HITS, "minimize", "nats/token", True, "loss on text where a rare n-gram of the context comes again"
        ),
        Quantity("cache_bytes", "minimize", "bytes", False, "decoding memory of one sequence at the target"),
        Quantity("state_bytes", "minimize", "bytes", False, "the part of the cache that does not grow"),
        Quantity("kv_bytes", "minimize", "bytes", False, "the part of the cache that grows with the context"),
        Quantity("params", "minimize", "parameters", False, "parameters at the target, embedding included"),
        Quantity("params_nonembedding", "minimize", "parameters", False, "parameters at the target, no embedding"),
        Quantity("params_active", "minimize", "parameters", False, "those that one token uses, no embedding"),
        Quantity("train_flops_per_token", "minimize", "FLOP/token", False, "training FLOPs at the target"),
        Quantity("decode_flops_per_token", "minimize", "FLOP/token", False, "decoding FLOPs at the target"),
        Quantity(
            "decode_bytes_per_token",
            "minimize",
            "bytes/token",
            False,
            "bytes read to decode one token, batch 1",
        ),
        Quantity("decode_tokens_per_s", "maximize", "tokens/s", False, "decoding speed at the target"),
        Quantity("prefill_s", "minimize", "s", False, "seconds to read a prompt at the target"),
        Quantity("train_tokens_per_s", "maximize", "tokens/s", False, "training speed at the target"),
        Quantity("peak_memory_bytes", "minimize", "bytes", False, "most memory of a training step at the target"),
    )
}


@dataclass(frozen=True)
class Objective:
    """One axis of the front."""

    name: str
    direction: Direction
    unit: str
    trained: bool

    @classmethod
    def named(cls, name: str) -> Objective:
        quantity = QUANTITIES[name]
        return cls(name, quantity.direction, quantity.unit, quantity.trained)

    def loss(self, value: float) -> float:
        """`value` so that smaller is better."""
        return value if self.direction == "minimize" else -value


@dataclass(frozen=True)
class Constraint:
    """`name` at the target scale must not be above `maximum`. Known before any training."""

    name: str
    maximum: float

    def excess(self, cost: Cost) -> float:
        """Relative excess over the bound; feasible at 0 or below."""
        return cost.value(self.name) / self.maximum - 1


DEFAULT_OBJECTIVES = (Objective.named("loss"), Objective.named("cache_bytes"))
