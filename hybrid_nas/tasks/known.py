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

from hybrid_nas.tasks import AR_HITS, BEYOND, OF_TEXT, associative, induction, long_range, mad
from hybrid_nas.tasks.sequences import Drawn

LONGEST = 4.0
RAREST = 10.0
"""In a million tokens. Zoology took 1,250 in its training text of billions, at a vocabulary of 50 thousand."""


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
    "repeat": Task(long_range.repeat, of_text=True),
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
        raise _unknown("task", text, name, tuple(TASKS))
    task, sizes = TASKS[name], _sizes(text, match[2] or "", [*sizes_of(TASKS[name]), "times"])
    times = float(sizes.pop("times", task.times))
    if not 0 < times <= LONGEST:
        raise ValueError(f"task {text!r}: times must lie above 0 and up to {LONGEST:g}, found {times:g}")
    return Task(partial(task.function, **sizes) if sizes else task.function, times, task.of_text)


def _unknown(what: str, text: str, name: str, known: tuple[str, ...]) -> ValueError:
    if name in OF_TEXT:
        return ValueError(f"unknown {what} {text!r}; it is a probe, not trained on: name it under probes")
    near = difflib.get_close_matches(name, known, 1, 0.4)
    return ValueError(f"unknown {what} {text!r}; " + (f"did you mean {near[0]}?" if near else ", ".join(known)))


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
    """As `task_named`, and the probes of text, whose tokens alone mean something: `beyond` or `beyond(times=2)`, and
    `ar_hits` (see `ar_hits_named`)."""
    match = WITH_SIZES.fullmatch(text.strip())
    if match is not None and match[1] == AR_HITS:
        ar_hits_named(text)
        return Task(_nothing, of_text=True)
    if match is None or match[1] not in (BEYOND, *TASKS):
        raise _unknown("probe", text, match[1] if match else text, (*TASKS, *OF_TEXT))
    if match[1] != BEYOND:
        return task_named(text)
    times = float(_sizes(text, match[2] or "", ["times"]).get("times", 2))
    if not 1 < times <= LONGEST:
        raise ValueError(f"probe {text!r}: times must lie above 1 and up to {LONGEST:g}, found {times:g}")
    return Task(_nothing, times, of_text=True)


@dataclass(frozen=True)
class ArHits:
    """`ngram` symbols (None: as many as suit the vocabulary) that stand at most `rarest` times in a million tokens of
    the training text."""

    ngram: int | None = None
    rarest: float = RAREST


def ar_hits_named(text: str) -> ArHits:
    """`ar_hits`, or with sizes `ar_hits(ngram=2, rarest=10)`."""
    match = WITH_SIZES.fullmatch(text.strip())
    sizes = _sizes(text, (match[2] if match else None) or "", ["ngram", "rarest"])
    ngram, rarest = sizes.get("ngram"), float(sizes.get("rarest", RAREST))
    if ngram is not None and (not isinstance(ngram, int) or ngram < 2):
        raise ValueError(f"probe {text!r}: ngram is a whole number of symbols, 2 or more, found {ngram:g}")
    if not 0 <= rarest <= 1e6:
        raise ValueError(
            f"probe {text!r}: rarest is the most occurrences in a million training tokens, up to 1000000 (any), "
            f"found {rarest:g}"
        )
    return ArHits(ngram, rarest)


def _nothing(sequences: int, tokens: int, generator: np.random.Generator) -> Drawn:
    raise ValueError("a probe of text has no sequences of its own to train on")
