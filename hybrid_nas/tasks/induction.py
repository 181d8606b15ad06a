"""Induction: what followed this symbol last time follows it again [arXiv:2209.11895]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybrid_nas.tasks.sequences import FIRST, SYMBOLS, Drawn, permutations


def induction(sequences: int, tokens: int, generator: np.random.Generator, longest: int = 32) -> Drawn:
    """A string of different symbols, over and over. Each sequence has a length of its own, from a quarter of `longest`
    to `longest`, so the place of a symbol says nothing and its last neighbour everything. Strings of 3 and of 5:

        tokens   q z k q z k q z k q
        scored           ^ ^ ^ ^ ^ ^

        tokens   f w b t m f w b t m
        scored               ^ ^ ^ ^

    Scored from the second symbol of the second reading on: the first cannot be known.
    """
    if not 4 <= longest <= SYMBOLS:
        raise ValueError(f"induction: longest must lie between 4 and {SYMBOLS}, found {longest}")
    periods = generator.integers(longest // 4, longest + 1, (sequences, 1))
    strings = FIRST + permutations(sequences, SYMBOLS, generator)
    places: NDArray[np.int64] = np.arange(tokens)[None, :] % periods
    return np.take_along_axis(strings, places, axis=1), np.arange(tokens)[None, :] > periods
