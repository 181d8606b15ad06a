"""A key that stands once, far back: at the training length and beyond it [arXiv:2305.16300, section 5;
arXiv:2510.04800, Fig. 4]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybrid_nas.tasks.sequences import FIRST, SYMBOLS, Drawn, at_least

MARK = FIRST + SYMBOLS - 1
DIGITS = 10
PHRASE = 12


def passkey(sequences: int, tokens: int, generator: np.random.Generator, digits: int = 5) -> Drawn:
    """A phrase of its own for each sequence, over and over; somewhere a mark and `digits` digits; at the end the mark
    and the digits again, which are scored. With the phrase `u v w` and digits as numbers:

        tokens   u v w u | 4 7 v w u v w | 4 7
        scored                             ^ ^
    """
    phrases = FIRST + DIGITS + generator.integers(0, SYMBOLS - DIGITS - 1, (sequences, PHRASE))
    filling: NDArray[np.int64] = np.tile(phrases, (1, -(-tokens // PHRASE)))[:, :tokens]
    return _hidden(filling, digits, generator, "passkey")


def needle(
    sequences: int, tokens: int, generator: np.random.Generator, filling: NDArray[np.int64], digits: int = 5
) -> Drawn:
    """As `passkey`, with the digits hidden in text. `filling` is (any number, at least `tokens`) of it:

    tokens   t h e   b | 4 7   o o k   i s | 4 7
    scored                                   ^ ^
    """
    if len(filling) < 1 or filling.shape[1] < tokens:
        raise ValueError(f"needle: sequences of {tokens} tokens need as much text each, found {filling.shape}")
    rows = filling[np.arange(sequences) % len(filling), :tokens].copy()
    return _hidden(rows, digits, generator, "needle")


def _hidden(rows: NDArray[np.int64], digits: int, generator: np.random.Generator, task: str) -> Drawn:
    """Write the key into each row at a depth of its own, and again at the end."""
    sequences, tokens = rows.shape
    at_least(task, f"tokens for {digits} digits", tokens, 3 * (digits + 1))
    key = np.concatenate(
        [np.full((sequences, 1), MARK), FIRST + generator.integers(0, DIGITS, (sequences, digits))], axis=1
    )
    depths = generator.integers(0, tokens - 2 * (digits + 1) + 1, (sequences, 1))
    np.put_along_axis(rows, depths + np.arange(digits + 1), key, axis=1)
    rows[:, tokens - digits - 1 :] = key
    scored = np.zeros(rows.shape, np.bool_)
    scored[:, tokens - digits :] = True
    return rows, scored
