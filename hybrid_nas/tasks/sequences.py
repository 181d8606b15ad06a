"""What every task's sequences are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIRST = 128
"""Symbols are bytes from here on, which text hardly uses: they share the embedding with the text, not its meaning."""
SYMBOLS = 128
"""How many there are below the vocabulary of bytes; a task of more needs a larger vocabulary."""
Drawn = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""(sequences, tokens) symbols, and where one can be told from those before it: what is scored."""


def permutations(count: int, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(count, size): a random order of `size` things each."""
    return np.argsort(generator.random((count, size)), axis=1)


def empty(sequences: int, tokens: int) -> Drawn:
    """Sequences to be filled in."""
    return np.zeros((sequences, tokens), np.int64), np.zeros((sequences, tokens), np.bool_)


def at_least(task: str, what: str, found: int, least: int) -> None:
    """ValueError where `found` of something is less than the task needs."""
    if found < least:
        raise ValueError(f"{task}: needs at least {least} {what}, found {found}")
