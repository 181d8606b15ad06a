"""AR hits (AR: associative recall): tokens of held-out text that the context tells and the training text does not.

A token is a hit where it completes an n-gram that stood earlier in the same sequence and is rare in the training text,
so that its counts do not give it away. On these tokens lies most of the difference in loss between attention and gated
convolutions [Zoology, arXiv:2312.04927, section 3]; on the others text is mostly local.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybrid_nas.budget import Budget
from hybrid_nas.data import VOCAB, Text
from hybrid_nas.tasks import AR_HITS, base
from hybrid_nas.tasks.known import ArHits, ar_hits_named

NGRAM, NGRAM_OF_BYTES = 2, 5
"""Fewer bytes stand earlier by chance, and more are told by those before; share and difficulty of the hits are near
those of two symbols of a vocabulary of thousands (search_spaces/README.md has both)."""
CHUNK = 1 << 20
COUNTED = 1 << 27
"""Tokens of the training text that are counted at most, in pieces from all over it."""
FILTER_BITS = 20
GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)

_marks: dict[tuple[object, ...], NDArray[np.bool_]] = {}
_counting = threading.Lock()


def ar_hits(text: Text, rows: NDArray[np.int64], probe: ArHits) -> NDArray[np.bool_]:
    """Which tokens of the held-out `rows` (sequences, tokens) are hits: found once a process. ValueError where n-grams
    are too long, or no token is a hit.

    Of two symbols, where `a b` is frequent in the training text:

        tokens    a b c a b d b c d
        hits                    ^
    """
    ngram = probe.ngram or (NGRAM_OF_BYTES if text.vocab <= VOCAB else NGRAM)
    most = longest(text.vocab)
    if ngram > most:
        raise ValueError(f"{AR_HITS}: ngram is at most {most} at {text.vocab} different tokens, found {ngram}")
    key = text.fingerprint, rows.shape, ngram, probe.rarest
    with _counting:  # trainings that share a process wait for the first one's count
        if key not in _marks:
            _marks[key] = _hits(text, rows, ngram, probe.rarest)
    return _marks[key]


def check(text: Text, context: int, budget: Budget) -> None:
    """ValueError where a probe of `budget` has no hit in `text`, before anything is trained."""
    for name in budget.probes:
        if base(name) == AR_HITS:
            text.check(context + 1)
            ar_hits(text, held_out(text, context, budget), ar_hits_named(name))


def held_out(text: Text, context: int, budget: Budget) -> NDArray[np.int64]:
    """The sequences that the held-out loss is taken on, the same for all seeds, (sequences, context + 1)."""
    return text.validation(max(1, budget.validation_tokens // context), context + 1)


def _hits(text: Text, rows: NDArray[np.int64], ngram: int, rarest: float) -> NDArray[np.bool_]:
    found = repeated(rows, ngram, text.vocab)
    which, every = np.zeros_like(found), codes(rows, ngram, text.vocab)
    again = found[:, ngram - 1 :]
    wanted, places = np.unique(every[again], return_inverse=True)
    if len(wanted):
        rare = per_million(wanted, text.train, ngram, text.vocab) <= rarest
        which[:, ngram - 1 :][again] = rare[places]
    if not which.any():
        raise ValueError(
            f"{AR_HITS}: {text.name}: of {rows.size:,} held-out tokens {found.sum():,} complete {ngram} symbols that "
            f"stood earlier in their sequence, and none of these stands at most {rarest:g} times in a million training "
            "tokens; take more validation_tokens, a longer context, a larger rarest or a smaller ngram"
        )
    return which


def longest(vocab: int) -> int:
    """Symbols of the longest n-gram that fits one number.

    >>> longest(256), longest(4096)
    (7, 5)
    """
    return next(n for n in range(62, 0, -1) if vocab**n < 1 << 63)


def codes(tokens: NDArray[Any], ngram: int, vocab: int) -> NDArray[np.int64]:
    """Each n-gram as one number, along the last axis, which becomes `ngram` - 1 shorter.

    >>> codes(np.array([1, 2, 3]), 2, 10).tolist()
    [12, 23]
    """
    length = max(0, tokens.shape[-1] - ngram + 1)
    found = np.zeros((*tokens.shape[:-1], length), np.int64)
    for i in range(ngram):
        found *= vocab
        found += tokens[..., i : i + length]
    return found


def repeated(rows: NDArray[np.int64], ngram: int, vocab: int) -> NDArray[np.bool_]:
    """Which tokens of each row complete an n-gram that stood earlier in it.

    >>> repeated(np.array([[1, 2, 3, 1, 2, 4, 2, 3, 4]]), 2, 5).astype(int).tolist()
    [[0, 0, 0, 0, 1, 0, 0, 1, 0]]
    """
    found = np.zeros(rows.shape, np.bool_)
    for row, marks in zip(codes(rows, ngram, vocab), found, strict=True):
        marks[ngram - 1 :] = True
        marks[ngram - 1 + np.unique(row, return_index=True)[1]] = False
    return found


def per_million(wanted: NDArray[np.int64], train: NDArray[Any], ngram: int, vocab: int) -> NDArray[np.float64]:
    """How often each of the `wanted` codes, sorted and each once, stands in a million tokens of `train`. A hash of 20
    bits spares most tokens the search."""
    likely = np.zeros(1 << FILTER_BITS, np.bool_)
    likely[_hashed(wanted)] = True
    counts, counted = np.zeros(len(wanted), np.int64), 0
    for start in range(0, len(train), CHUNK * -(-len(train) // COUNTED)):
        numbers = codes(train[start : start + CHUNK + ngram - 1], ngram, vocab)
        counted += len(numbers)
        numbers = numbers[likely[_hashed(numbers)]]
        places = np.minimum(np.searchsorted(wanted, numbers), len(wanted) - 1)
        counts += np.bincount(places[wanted[places] == numbers], minlength=len(wanted))
    rates: NDArray[np.float64] = np.divide(counts, max(1, counted) / 1e6, dtype=np.float64)
    return rates


def _hashed(numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    return (numbers.astype(np.uint64) * GOLDEN) >> np.uint64(64 - FILTER_BITS)
