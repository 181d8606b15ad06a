"""Synthetic tasks by name: what a model can do with its context, which text teaches slowly.

A task draws sequences of symbols and says which of them can be told from those before; a model is scored there. A YAML
file names them (`budget: {tasks: [mqar, induction], probes: [passkey]}`); each function's docstring draws an example.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from hybrid_nas.tasks import associative, induction, mad
from hybrid_nas.tasks.sequences import Drawn

Draw = Callable[[int, int, np.random.Generator], Drawn]


@dataclass(frozen=True)
class Task:
    """`draw(sequences, tokens, generator)`; `times` the training length is how long its sequences are."""

    draw: Draw
    times: float = 1.0

    def tokens(self, context: int) -> int:
        return round(self.times * context)


TASKS: dict[str, Task] = {
    "in_context_recall": Task(mad.in_context_recall),
    "fuzzy_recall": Task(mad.fuzzy_recall),
    "noisy_recall": Task(mad.noisy_recall),
    "selective_copying": Task(mad.selective_copying),
    "compression": Task(mad.compression),
    "memorization": Task(mad.memorization),
    "mqar": Task(associative.mqar),
    "induction": Task(induction.induction),
}


WITH_SIZES = re.compile(r"([a-z_]+)(?:\((.*)\))?")
SIZE = re.compile(r"\s*([a-z_]+)\s*=\s*([0-9]+(?:\.[0-9]+)?)\s*")


@lru_cache(maxsize=256)
def task_named(text: str) -> Task:
    """The task of a name, or of one with sizes: `mqar`, `mqar(pairs=16)`. ValueError names the nearest right thing."""
    match = WITH_SIZES.fullmatch(text.strip())
    name = match[1] if match else text
    if match is None or name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1, 0.4)
        raise ValueError(f"unknown task {text!r}; " + (f"did you mean {near[0]}?" if near else ", ".join(TASKS)))
    task = TASKS[name]
    if not match[2]:
        return task
    known = list(inspect.signature(task.draw).parameters)[3:]
    sizes: dict[str, int | float] = {}
    for part in match[2].split(","):
        size = SIZE.fullmatch(part)
        if size is None or size[1] not in known:
            raise ValueError(f"task {text!r}: sizes are written {name}({known[0]}=16); {name} has {', '.join(known)}")
        sizes[size[1]] = float(size[2]) if "." in size[2] else int(size[2])
    return Task(partial(task.draw, **sizes), task.times)
