"""A Budget: what one proxy training may spend and how it spends it. Equal for all candidates of a study, in tokens or
in FLOPs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from hybrid_nas.architecture import Architecture
from hybrid_nas.cost import cost

FLOPS, STEP_S = 1e15, 1e-4
"""What no training passes: FLOPs a second (an H100's peak, bfloat16), and the seconds of a step's dozens of kernels."""
YEAR_S = 365 * 86_400.0
MOST_REPLICATES = 1_000


def learning_rate(width: int) -> float:
    """Peak learning rate of a model of `width`: 3e-3 at width 64, falling as 1 / width.

    The best of a sweep at widths 32, 64 and 128 (studies/2026-11_default_proxy).
    """
    return 3e-3 * 64 / width


@dataclass(frozen=True)
class Budget:
    """`tokens` are trained on in sequences of the proxy's context, `batch` of them a step.

    Warm-up and cool-down are shares of the steps (a trapezoid, as in [arXiv:2510.04800, App. E]); `rungs` are the
    shares after which a trial reports its held-out loss and may be stopped. `learning_rate` None takes the rule of
    `learning_rate` for the width. `recall_share` of the sequences of each batch are recall sequences of
    `recall_task` and `recall_symbols` (see `hybrid_nas.recall`), whose mean loss is added to that of the text: it
    weighs as much at any share. At 1 there is no text, and no loss. With `tasks` they are shared out among these
    synthetic tasks instead (see `hybrid_nas.tasks`), which take turns over the steps where a batch has fewer, and
    `recall` is the mean over them.
    `probes` are tasks, or losses on held-out text (`beyond`, `ar_hits`), that are scored at the end and not trained on;
    `aggregate` is how a table makes `score` of them (see `hybrid_nas.aggregate`).
    `replicates` is the number of further seeds that members of the front are trained with at the end.

    With `flops` each candidate has the tokens that so many training FLOPs buy at its own cost at the proxy scale (equal
    compute); without, all have the same `tokens` (equal data).
    """

    tokens: int = 200_000
    batch: int = 8
    learning_rate: float | None = None
    warmup: float = 0.25
    cooldown: float = 0.2
    weight_decay: float = 0.1
    clip: float = 1.0
    rungs: tuple[float, ...] = (0.25, 0.5)
    validation_tokens: int = 16_384
    recall_share: float = 0.5
    recall_task: Literal["copy", "associative", "induction"] = "copy"
    recall_symbols: int = 16
    tasks: tuple[str, ...] = ()
    probes: tuple[str, ...] = ()
    aggregate: Literal["mean", "rank", "z-score"] = "mean"
    mamba_init: Literal["paper", "original"] = "paper"
    replicates: int = 2
    flops: float | None = None

    def __post_init__(self) -> None:
        for name in ("rungs", "tasks", "probes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("tokens", "batch", "validation_tokens", "recall_symbols"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"budget: {name} must be a positive whole number, found {value!r}")
        again = self.replicates
        if isinstance(again, bool) or not isinstance(again, int) or not 0 <= again <= MOST_REPLICATES:
            raise ValueError(
                f"budget: replicates must be a whole number from 0 to {MOST_REPLICATES:,}, found {again!r}"
            )
        for name in ("warmup", "cooldown", "recall_share"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"budget: {name} is a share from 0 to 1, found {value!r}")
        if self.warmup + self.cooldown > 1:
            raise ValueError(
                f"budget: warmup and cooldown together must not pass 1, found {self.warmup} + {self.cooldown}"
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < 1:
            raise ValueError(f"budget: learning_rate lies between 0 and 1, found {self.learning_rate!r}")
        if self.flops is not None and not 0 < self.flops < math.inf:
            raise ValueError(f"budget: flops must be a number above 0, found {self.flops!r}")
        if self.weight_decay < 0 or self.clip <= 0:
            raise ValueError(
                f"budget: weight_decay must be 0 or more and clip above 0, found {self.weight_decay}, {self.clip}"
            )
        if list(self.rungs) != sorted(set(self.rungs)) or not all(0 < rung < 1 for rung in self.rungs):
            raise ValueError(f"budget: rungs are rising shares between 0 and 1, found {list(self.rungs)}")
        if self.recall_task not in ("copy", "associative", "induction"):
            raise ValueError(f"budget: recall_task is copy, associative or induction, found {self.recall_task!r}")
        if self.tasks or self.probes:
            from hybrid_nas.tasks.known import probe_named, task_named  # numpy, which a budget alone does not need

            for key, named in (("tasks", task_named), ("probes", probe_named)):
                for name in getattr(self, key):
                    try:
                        named(name)
                    except ValueError as error:
                        raise ValueError(f"budget: {key}: {error}") from None
            every = (*self.tasks, *self.probes)
            if len(set(every)) < len(every):
                raise ValueError(f"budget: tasks and probes: each once, found {list(every)}")
        if self.aggregate not in ("mean", "rank", "z-score"):
            raise ValueError(f"budget: aggregate is mean, rank or z-score, found {self.aggregate!r}")
        if self.mamba_init not in ("paper", "original"):
            raise ValueError(f"budget: mamba_init is paper or original, found {self.mamba_init!r}")

    def of(self, architecture: Architecture, context: int) -> Budget:
        """This budget with the tokens that it gives to `architecture`, trained at `context`."""
        if self.flops is None:
            return self
        tokens = self.flops / cost(architecture, context).train_flops_per_token
        return replace(self, tokens=max(1, round(tokens)))

    def least_seconds(self, params: int, context: int) -> float:
        """What one training of `params` parameters takes at the very least, on any device."""
        if self.flops is not None:
            return self.flops / FLOPS
        return max(6 * params * self.tokens / FLOPS, self.tokens / (self.batch * context) * STEP_S)

    @property
    def mode(self) -> str:
        """What all candidates have in common, in words."""
        if self.flops is None:
            return f"Equal data: every design was trained on {self.tokens:,} tokens."
        return (
            f"Equal compute: every design was trained for {self.flops:.3g} FLOPs, on as many tokens as its own cost at "
            "the proxy scale allows."
        )

    def rung(self, tokens: int, context: int) -> int:
        """The number of the rung at which a training of this budget has seen `tokens`: the nearest."""
        share = tokens / (self.steps(context) * self.batch * context)
        return min(range(len(self.rungs)), key=lambda i: abs(self.rungs[i] - share), default=0)

    def peak(self, width: int) -> float:
        """The peak learning rate of a model of `width`."""
        return self.learning_rate or learning_rate(width)

    def steps(self, context: int) -> int:
        """Optimizer steps at sequences of `context` tokens, at least one."""
        return max(1, round(self.tokens / (self.batch * context)))

    def trained(self, context: int) -> int:
        """Tokens of those steps."""
        return self.steps(context) * self.batch * context

    def recall_sequences(self) -> int:
        """How many sequences of each batch are recall sequences: at least one, and one of text, unless the share is
        0 or 1."""
        if self.recall_share in (0, 1):
            return round(self.recall_share) * self.batch
        if self.batch == 1:
            raise ValueError(
                "budget: a batch of 1 cannot hold text and recall; take batch 2 or more, or recall_share 0"
            )
        return min(max(1, round(self.recall_share * self.batch)), self.batch - 1)

    def check_tasks(self, context: int) -> None:
        """ValueError where one of the tasks would never be trained on."""
        count, them = len(self.tasks), "it" if len(self.tasks) == 1 else "them"
        if count and not self.recall_share:
            raise ValueError(
                f"tasks: recall_share is 0, so no sequence is left to train on {', '.join(self.tasks)}; raise "
                f"recall_share, or name {them} under probes"
            )
        steps = self.steps(context)
        if count and (found := steps * self.recall_sequences()) < count:
            raise ValueError(
                f"tasks: {count} tasks need as many recall sequences or more, found {found}: of {self.batch} sequences "
                f"a step {self.recall_sequences()}, and {steps:,} step{'s' * (steps > 1)}; raise tokens or "
                "recall_share, or name some under probes"
            )

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), **{name: list(getattr(self, name)) for name in ("rungs", "tasks", "probes")}}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Budget:
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})
