"""What every task's sequences are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIRST = 128
"""Symbols are bytes from here on, which text hardly uses: they share the embedding with the text, not its meaning."""
Drawn = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""(sequences, tokens) symbols, and where one can be told from those before it: what is scored."""


def permutations(count: int, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """(count, size): a random order of `size` things each."""
    return np.argsort(generator.random((count, size)), axis=1)
