"""Multi-query associative recall [arXiv:2312.04927, section 4.1], as Zoology draws it."""

from __future__ import annotations

import numpy as np

from hybrid_nas.tasks.sequences import FIRST, SYMBOLS, Drawn, at_least, empty, permutations

POWER = 0.01
"""Gaps between a pair and its query follow a power law: most are short, some as long as the sequence."""


def mqar(sequences: int, tokens: int, generator: np.random.Generator, pairs: int = 8) -> Drawn:
    """`pairs` different keys with their values, then each key once more, somewhere, among filling; a value is scored
    after its query. Filling as dots, keys in small letters:

        tokens   a F c B d F . . c B . a F . . . d F
        scored                     ^     ^         ^
    """
    half = SYMBOLS // 2
    at_least("mqar", f"tokens for {pairs} pairs", tokens, 4 * pairs)
    if not 1 <= pairs < half:
        raise ValueError(f"mqar: pairs must lie between 1 and {half - 1}, found {pairs}")
    keys = FIRST + 1 + permutations(sequences, half - 1, generator)[:, :pairs]
    values = FIRST + half + generator.integers(0, half, (sequences, pairs))
    drawn, scored = empty(sequences, tokens)
    drawn[:] = FIRST
    drawn[:, 0 : 2 * pairs : 2], drawn[:, 1 : 2 * pairs : 2] = keys, values
    slots = (tokens - 2 * pairs) // 2
    weights = POWER * np.arange(1, slots + 1) ** (POWER - 1.0)
    # Gumbel's trick draws `pairs` different slots a row with these weights.
    order = np.argsort(-(np.log(weights) + generator.gumbel(size=(sequences, slots))), axis=1)[:, :pairs]
    places = 2 * pairs + 2 * order
    np.put_along_axis(drawn, places, keys, axis=1)
    np.put_along_axis(drawn, places + 1, values, axis=1)
    np.put_along_axis(scored, places + 1, True, axis=1)
    return drawn, scored
