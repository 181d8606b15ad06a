"""Whether the sequences of a study can be drawn at all: asked before anything is trained, since no candidate changes
it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybrid_nas import ar_hits, recall
from hybrid_nas.budget import Budget
from hybrid_nas.data import Text
from hybrid_nas.scale import Scale
from hybrid_nas.tasks import AR_HITS, BEYOND, base
from hybrid_nas.tasks.known import probe_named, task_named


class Undrawable(ValueError):
    """`key` is what of the proxy or budget the cause stands under."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def check(text: Text, scale: Scale, budget: Budget) -> None:
    """ValueError where the text does not fit the proxy, or Undrawable where its vocabulary, a task or a probe does not:
    one sequence of each is drawn, as it is trained on and as it is scored."""
    if budget.recall_sequences() < budget.batch:
        text.check(scale.context + 1)
    if text.vocab > scale.vocab:
        raise Undrawable(
            "vocab",
            f"data: {text.name} has {text.vocab:,} different tokens, so proxy.vocab must be at least that, found "
            f"{scale.vocab:,}",
        )
    if budget.recall_sequences() and not budget.tasks:
        task, symbols = budget.recall_task, budget.recall_symbols
        try:
            _fits(recall.draw(task, symbols, 1, scale.context + 1, np.random.default_rng(0))[0], scale)
        except ValueError as error:
            raise Undrawable("recall_symbols", f"proxy: {error}") from None
    for key, names in (("tasks", budget.tasks), ("probes", budget.probes)):
        for name in names:
            try:
                _draw(name, text, scale, budget, trained=key == "tasks")
            except ValueError as error:
                raise Undrawable(
                    key, f"{key}: {name} cannot be drawn at proxy.context {scale.context:,}: {error}"
                ) from None


def _draw(name: str, text: Text, scale: Scale, budget: Budget, trained: bool) -> None:
    if base(name) == AR_HITS:
        ar_hits.check(text, scale.context, budget)
        return
    if base(name) == BEYOND:
        _held_out(text, round(probe_named(name).times * scale.context) + 1)
        return
    task, generator = task_named(name), np.random.default_rng(0)
    for length in {task.tokens(scale.context) + 1, *([scale.context + 1] if trained else [])}:
        filling = _held_out(text, length) if task.of_text else None
        _fits(task.draw(1, length, generator, filling)[0], scale)


def _fits(drawn: NDArray[Any], scale: Scale) -> None:
    if drawn.max() >= scale.vocab:
        raise ValueError(f"its symbols go up to {drawn.max()}, so proxy.vocab must be more, found {scale.vocab:,}")


def _held_out(text: Text, length: int) -> NDArray[np.int64]:
    if len(text.held_out) < length:
        raise ValueError(
            f"the held-out text of {text.name} has {len(text.held_out):,} tokens, one sequence needs {length:,}"
        )
    return text.validation(1, length)
