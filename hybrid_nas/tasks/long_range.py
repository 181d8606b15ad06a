"""What stands far back: a key that stands once, at the training length and beyond it [arXiv:2305.16300, section 5;
arXiv:2510.04800, Fig. 4], and text that comes again."""

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
    _enough("needle", filling, tokens)
    rows = filling[np.arange(sequences) % len(filling), :tokens].copy()
    return _hidden(rows, digits, generator, "needle")


def repeat(
    sequences: int, tokens: int, generator: np.random.Generator, filling: NDArray[np.int64], shortest: int = 32
) -> Drawn:
    """Text over and over: of each row of `filling` (any number, at least `tokens`) its first p tokens, p drawn anew for
    every sequence from `shortest` to half of `tokens`. Scored from the second time on. With p = 5:

        tokens   a s t h e a s t h e a s
        scored             ^ ^ ^ ^ ^ ^ ^

    Trained on, it asks to copy in the words of the text itself; beside text that costs more than it teaches
    (studies/2026-11_paper_prose).
    """
    at_least("repeat", "token a piece", shortest, 1)
    at_least("repeat", f"tokens for a piece of {shortest} twice", tokens, 2 * shortest)
    _enough("repeat", filling, tokens)
    periods = generator.integers(shortest, tokens // 2 + 1, (sequences, 1))
    places = np.arange(tokens)
    rows = filling[np.arange(sequences) % len(filling)]
    return np.take_along_axis(rows, places % periods, axis=1), places >= periods


def _enough(task: str, filling: NDArray[np.int64], tokens: int) -> None:
    if len(filling) < 1 or filling.shape[1] < tokens:
        raise ValueError(f"{task}: sequences of {tokens} tokens need as much text each, found {filling.shape}")


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
