"""The six tasks of mechanistic architecture design [arXiv:2403.17844], as sequences of symbols.

Each is drawn anew from its description there. Differences: batches are drawn without end in place of a fixed training
set (but for the dictionary of `memorization`), and `compression`, which there is read out by a decoder of its own from
the last position alone, is read out here by the model, position by position.
"""

from __future__ import annotations

import numpy as np

from hybrid_nas.tasks.sequences import FIRST, Drawn, at_least, empty, permutations

DICTIONARY = 12345
"""Seed of what `memorization` is to know, the same for every batch, seed and candidate."""


def in_context_recall(sequences: int, tokens: int, generator: np.random.Generator, vocab: int = 16) -> Drawn:
    """Keys and values in turn, each key with the same value wherever it comes in the sequence. `vocab`: half keys, half
    values. A value is scored where its key has come before. With keys in small letters:

        tokens   b F a D b F c F a D b F
        scored             ^       ^   ^
    """
    keys, values, seen = _pairs(sequences, tokens, vocab, generator, "in_context_recall")
    drawn, scored = empty(sequences, tokens)
    drawn[:, 0::2], drawn[:, 1::2] = keys[:, : -(-tokens // 2)], values[:, : tokens // 2]
    scored[:, 1::2] = seen[:, : tokens // 2]
    return drawn, scored


def _pairs(
    sequences: int, tokens: int, vocab: int, generator: np.random.Generator, task: str
) -> tuple[np.ndarray, ...]:
    """Keys, their values, and whether the key came before, (sequences, pairs) each."""
    at_least(task, "symbols in vocab", vocab, 4)
    at_least(task, "tokens", tokens, 4)
    half, pairs = vocab // 2, -(-tokens // 2)
    places = generator.integers(0, half, (sequences, pairs))
    of_key = FIRST + half + generator.integers(0, half, (sequences, half))
    return FIRST + places, np.take_along_axis(of_key, places, axis=1), _before(places, half)


def _before(places: np.ndarray, kinds: int) -> np.ndarray:
    """Whether the same kind stands somewhere before in the row."""
    first = (places[:, :, None] == np.arange(kinds)).argmax(axis=1)  # of kinds that come at all
    return np.take_along_axis(first, places, axis=1) < np.arange(places.shape[1])


def fuzzy_recall(
    sequences: int, tokens: int, generator: np.random.Generator, vocab: int = 16, longest: int = 3
) -> Drawn:
    """As in-context recall, but keys and values are motifs of 1 to `longest` symbols: a key is known by all of its
    symbols. All symbols of a value are scored. With motifs up to 2:

        tokens   a b F c D E a b F c D E
        scored                   ^   ^ ^
    """
    at_least("fuzzy_recall", "symbols in vocab", vocab, 4)
    at_least("fuzzy_recall", "tokens", tokens, 4 * longest)
    half = vocab // 2
    drawn, scored = empty(sequences, tokens)
    for row in range(sequences):
        lengths = generator.integers(1, longest + 1, (2, half))
        order = generator.permutation(half)
        motifs: list[tuple[np.ndarray, np.ndarray]] = []
        for i in range(half):  # no key begins with another one: the first symbols differ
            key = np.concatenate([order[i : i + 1], generator.integers(0, half, lengths[0, i] - 1)])
            motifs.append((FIRST + key, FIRST + half + generator.integers(0, half, lengths[1, i])))
        line: list[int] = []
        marks: list[bool] = []
        came: set[int] = set()
        while len(line) < tokens:
            kind = int(generator.integers(half))
            key, value = motifs[kind]
            line += [*key, *value]
            marks += [*(False for _ in key), *(kind in came for _ in value)]
            came.add(kind)
        drawn[row], scored[row] = line[:tokens], marks[:tokens]
    return drawn, scored


def noisy_recall(
    sequences: int,
    tokens: int,
    generator: np.random.Generator,
    vocab: int = 16,
    noise: float = 0.2,
    noise_vocab: int = 16,
) -> Drawn:
    """In-context recall with a share `noise` of symbols of a vocabulary of their own between the pairs. Noise as dots:

    tokens   b F . a D . . b F c F .
    scored                   ^
    """
    if not 0 <= noise < 1:
        raise ValueError(f"noisy_recall: noise is a share from 0 up to below 1, found {noise}")
    keys, values, seen = _pairs(sequences, 2 * tokens, vocab, generator, "noisy_recall")
    drawn, scored = empty(sequences, tokens)
    apart = generator.random((sequences, tokens)) < noise
    symbols = FIRST + vocab + generator.integers(0, noise_vocab, (sequences, tokens))
    for row in range(sequences):
        place = pair = 0
        while place < tokens:
            if apart[row, place]:
                drawn[row, place] = symbols[row, place]
                place += 1
                continue
            drawn[row, place] = keys[row, pair]
            if place + 1 < tokens:
                drawn[row, place + 1], scored[row, place + 1] = values[row, pair], seen[row, pair]
            place, pair = place + 2, pair + 1
    return drawn, scored


def selective_copying(
    sequences: int, tokens: int, generator: np.random.Generator, vocab: int = 16, copied: int = 16
) -> Drawn:
    """`copied` symbols strewn among blanks, then a mark, then the symbols again in their order. With blanks as dots:

    tokens   . q . . z k . | q z k
    scored                   ^ ^ ^
    """
    at_least("selective_copying", "symbols in vocab", vocab, 3)
    at_least("selective_copying", "tokens", tokens, 2 * copied + 1)
    blank, mark, room = FIRST + vocab - 2, FIRST + vocab - 1, tokens - copied - 1
    drawn, scored = empty(sequences, tokens)
    drawn[:, :room], drawn[:, room] = blank, mark
    symbols = FIRST + generator.integers(0, vocab - 2, (sequences, copied))
    places = np.sort(permutations(sequences, room, generator)[:, :copied], axis=1)
    np.put_along_axis(drawn[:, :room], places, symbols, axis=1)
    drawn[:, room + 1 :], scored[:, room + 1 :] = symbols, True
    return drawn, scored


def compression(sequences: int, tokens: int, generator: np.random.Generator, vocab: int = 16) -> Drawn:
    """A random string, a mark, then its symbols asked for by their places in random order: what was read has to be
    kept whole. Places as numbers:

        tokens   q z k | 2 k 0 q 1 z
        scored             ^   ^   ^
    """
    at_least("compression", "symbols in vocab", vocab, 2)
    at_least("compression", "tokens", tokens, 4)
    length = (tokens - 1) // 3
    drawn, scored = empty(sequences, tokens)
    string = FIRST + generator.integers(0, vocab, (sequences, length))
    order = permutations(sequences, length, generator)
    drawn[:, :length], drawn[:, length] = string, FIRST + vocab
    drawn[:, length + 1 : 3 * length + 1 : 2] = FIRST + vocab + 1 + order
    drawn[:, length + 2 : 3 * length + 2 : 2] = np.take_along_axis(string, order, axis=1)
    scored[:, length + 2 : 3 * length + 2 : 2] = True
    drawn[:, 3 * length + 1 :] = FIRST + vocab
    return drawn, scored


def memorization(sequences: int, tokens: int, generator: np.random.Generator, vocab: int = 128) -> Drawn:
    """Keys and values of a dictionary that no sequence explains and every sequence uses: what is known lies in the
    weights. `vocab`: half keys, half values.

        tokens   b F a D c F b F
        scored     ^   ^   ^   ^
    """
    at_least("memorization", "symbols in vocab", vocab, 4)
    half = vocab // 2
    values = FIRST + half + np.random.default_rng(DICTIONARY).integers(0, half, half)
    places = generator.integers(0, half, (sequences, -(-tokens // 2)))
    drawn, scored = empty(sequences, tokens)
    drawn[:, 0::2], drawn[:, 1::2] = FIRST + places, values[places][:, : tokens // 2]
    scored[:, 1::2] = True
    return drawn, scored
