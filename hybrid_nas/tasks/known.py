"""The tasks themselves. Each draws sequences of symbols and says which of them can be told from those before; a model
is scored there. A YAML file names them (`budget: {tasks: [mqar, induction], probes: [passkey(times=2)]}`). Each
function's docstring draws an example, and its last arguments are the sizes that a name may set: `mqar(pairs=16)`.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from hybrid_nas.tasks import BEYOND, associative, induction, long_range, mad
from hybrid_nas.tasks.sequences import Drawn

LONGEST = 4.0


@dataclass(frozen=True)
class Task:
    """`function` draws it, `times` the training length long. `of_text`: it takes text to hide things in."""

    function: Callable[..., Drawn]
    times: float = 1.0
    of_text: bool = False

    def tokens(self, context: int) -> int:
        return max(1, round(self.times * context))

    def draw(
        self, sequences: int, tokens: int, generator: np.random.Generator, filling: NDArray[np.int64] | None = None
    ) -> Drawn:
        if self.of_text:
            return self.function(sequences, tokens, generator, filling=filling)
        return self.function(sequences, tokens, generator)


TASKS: dict[str, Task] = {
    "in_context_recall": Task(mad.in_context_recall),
    "fuzzy_recall": Task(mad.fuzzy_recall),
    "noisy_recall": Task(mad.noisy_recall),
    "selective_copying": Task(mad.selective_copying),
    "compression": Task(mad.compression),
    "memorization": Task(mad.memorization),
    "mqar": Task(associative.mqar),
    "induction": Task(induction.induction),
    "passkey": Task(long_range.passkey),
    "needle": Task(long_range.needle, of_text=True),
}

MAD_SIZES: dict[str, tuple[str, ...]] = {
    # The settings of [arXiv:2403.17844] whose symbols a vocabulary of bytes holds, its baseline first. Lengths are the
    # proxy's context (128 there; 256 for copying, 32 for compression and memorization), training sets are endless here.
    "in_context_recall": tuple(f"in_context_recall(vocab={v})" for v in (16, 32, 64, 128)),
    "fuzzy_recall": tuple(f"fuzzy_recall(vocab={v})" for v in (16, 32, 64, 128)),
    "noisy_recall": (
        *(f"noisy_recall(vocab={v})" for v in (16, 32, 64)),
        *(f"noisy_recall(noise={n})" for n in (0.4, 0.6, 0.8)),
    ),
    "selective_copying": (
        *(f"selective_copying(vocab={v})" for v in (16, 32, 64, 128)),
        *(f"selective_copying(copied={c})" for c in (32, 64, 96)),
    ),
    "compression": tuple(f"compression(vocab={v})" for v in (16, 32, 64)),
    "memorization": ("memorization(vocab=128)",),
}
"""Presets: every setting by the name that a YAML file gives it."""

WITH_SIZES = re.compile(r"([a-z_]+)(?:\((.*)\))?")
SIZE = re.compile(r"\s*([a-z_]+)\s*=\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*")


@lru_cache(maxsize=256)
def task_named(text: str) -> Task:
    """The task of a name, or of one with sizes: `mqar`, `mqar(pairs=16)`, `passkey(times=2)`. ValueError names the
    nearest right thing."""
    match = WITH_SIZES.fullmatch(text.strip())
    name = match[1] if match else text
    if match is None or name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, 1, 0.4)
        raise ValueError(f"unknown task {text!r}; " + (f"did you mean {near[0]}?" if near else ", ".join(TASKS)))
    task, sizes = TASKS[name], _sizes(text, match[2] or "", [*sizes_of(TASKS[name]), "times"])
    times = float(sizes.pop("times", task.times))
    if not 0 < times <= LONGEST:
        raise ValueError(f"task {text!r}: times must lie above 0 and up to {LONGEST:g}, found {times:g}")
    return Task(partial(task.function, **sizes) if sizes else task.function, times, task.of_text)


def sizes_of(task: Task) -> list[str]:
    """What a name may set."""
    return [name for name in list(inspect.signature(task.function).parameters)[3:] if name != "filling"]


def _sizes(text: str, inside: str, known: list[str]) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for part in inside.split(",") if inside.strip() else ():
        size = SIZE.fullmatch(part)
        if size is None or size[1] not in known:
            raise ValueError(f"task {text!r}: sizes are written NAME(size=16); its sizes are {', '.join(known)}")
        found[size[1]] = float(size[2]) if "." in size[2] else int(size[2])
    return found


def probe_named(text: str) -> Task:
    """As `task_named`, and `beyond` or `beyond(times=2)`, whose tokens alone mean something."""
    match = WITH_SIZES.fullmatch(text.strip())
    if match is None or match[1] != BEYOND:
        return task_named(text)
    times = float(_sizes(text, match[2] or "", ["times"]).get("times", 2))
    if not 1 < times <= LONGEST:
        raise ValueError(f"probe {text!r}: times must lie above 1 and up to {LONGEST:g}, found {times:g}")
    return Task(_nothing, times, of_text=True)


def _nothing(sequences: int, tokens: int, generator: np.random.Generator) -> Drawn:
    raise ValueError("beyond: a probe of text has no sequences of its own to train on")
