"""Recall: give back what stood earlier in the same sequence, which no parameter can know.

The tasks are drawn from bytes 128 to 255, which text hardly uses, so they share the embedding with the text and not
its meaning. Only positions whose byte can be known from the sequence are scored.

`copy` [arXiv:2402.01032, section 3]: a random string of `symbols` bytes, over and over. With symbols = 4:

    tokens   q z k m q z k m q z k m ...
    scored           ^ ^ ^ ^ ^ ^ ^ ^

`associative`: multi-query associative recall [arXiv:2312.04927, section 4.1]: `symbols` pairs of a key and a value
(bytes 128 to 191 are keys, 192 to 255 values), each pair once in random order, then all of them in another order, and
again until the sequence is full. With symbols = 3 and values in capitals:

    tokens   a F c B d F   c B a F d F   ...
    scored                   ^   ^   ^

`induction` is that of `hybrid_nas.tasks`, of strings up to `symbols` long; more tasks are there.

All ask a model to hold `symbols` bytes or pairs at once. Attention reads them back; a recurrent state has to carry
them all, and fails when they are too many for it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hybrid_nas.tasks.induction import induction

Task = Literal["copy", "associative", "induction"]
TASKS: tuple[Task, ...] = ("copy", "associative", "induction")
FIRST = 128
ALPHABET = 64


def draw(
    task: Task, symbols: int, sequences: int, tokens: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(sequences, tokens) bytes, and where a byte is scored: it can be told from the bytes before it."""
    check(task, symbols, tokens)
    match task:
        case "copy":
            return _copy(symbols, sequences, tokens, generator)
        case "associative":
            return _associative(symbols, sequences, tokens, generator)
        case "induction":
            return induction(sequences, tokens, generator, symbols)


def check(task: Task, symbols: int, tokens: int) -> None:
    """ValueError where a sequence of `tokens` bytes has no room for this task."""
    if task == "associative" and symbols > ALPHABET:
        raise ValueError(f"recall: associative has {ALPHABET} keys, so at most as many pairs; found {symbols} symbols")
    shortest = {"copy": symbols + 1, "induction": symbols + 2}.get(task, 2 * symbols + 2)
    if tokens < shortest:
        raise ValueError(
            f"recall: {task} of {symbols} symbols needs sequences of at least {shortest} tokens, found {tokens}; "
            "take a longer context or fewer recall_symbols"
        )


def _copy(
    symbols: int, sequences: int, tokens: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    text = FIRST + generator.integers(0, ALPHABET, (sequences, symbols))
    repeats = -(-tokens // symbols)
    scored = np.zeros((sequences, tokens), np.bool_)
    scored[:, symbols:] = True
    return np.tile(text, (1, repeats))[:, :tokens], scored


def _associative(
    symbols: int, sequences: int, tokens: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    keys = FIRST + _permutations(sequences, ALPHABET, generator)[:, :symbols]
    values = FIRST + ALPHABET + generator.integers(0, ALPHABET, (sequences, symbols))
    rounds = -(-tokens // (2 * symbols))
    order = np.concatenate([_permutations(sequences, symbols, generator) for _ in range(rounds)], axis=1)
    pairs = np.stack([np.take_along_axis(part, order, axis=1) for part in (keys, values)], axis=2)
    scored = np.zeros((sequences, tokens), np.bool_)
    scored[:, 2 * symbols + 1 :: 2] = True
    return pairs.reshape(sequences, -1)[:, :tokens], scored


def _permutations(count: int, size: int, generator: np.random.Generator) -> NDArray[np.int64]:
    return np.argsort(generator.random((count, size)), axis=1)
