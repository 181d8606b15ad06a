"""Byte-pair encoding: text as symbols for runs of bytes that come often [arXiv:1508.07909].

Symbols below 256 are the bytes, so any file has an encoding that gives it back byte for byte; then come the merges, in
the order in which they were found. A symbol lies inside a word: a run of letters (a byte above 127 counts as one), of
digits or of other signs, with the space before it; or a run of white space. The zero byte, which begins a document, is
a word of its own.

    of bytes   \\0 t h e ␣ c a t ␣ t h e ␣ c a t      15 tokens
    merges     256 = th, 257 = the, 258 = at, 259 = ␣c, 260 = ␣cat, ...
    symbols    \\0 the ␣cat ␣the ␣cat                  5 tokens
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hybrid_nas.cache_folder import whole

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES = 256
SMALLEST, LARGEST = BYTES + 1, 1 << 16
TRAINED_ON = 32_000_000
"""Bytes at most that merges are found in: of a longer training text, documents (pieces of PIECE) evenly spread over it.
Where words are long, as in Chinese, each takes some 90 bytes of memory."""
PIECE = 1 << 16
AT_ONCE = 32
SPACE, LETTER = r"\t\n\x0b\x0c\r ", r"A-Za-z\x80-\xff"
WORD = rf" ?[{LETTER}]+| ?[0-9]+| ?[^{SPACE}\x00{LETTER}0-9]+|[{SPACE}]+(?![^{SPACE}\x00])|[{SPACE}]+|\x00"
"""Over text whose characters are its bytes (Latin-1)."""


def check(symbols: object) -> None:
    """ValueError where text cannot be made into so many symbols."""
    if not isinstance(symbols, int) or isinstance(symbols, bool) or not SMALLEST <= symbols <= LARGEST:
        raise ValueError(
            f"bpe: a whole number of symbols from {SMALLEST} (the {BYTES} bytes and one merge) to {LARGEST:,} must "
            f"stand here, found {symbols!r}"
        )


def version() -> str:
    """That of the library which finds the merges. ValueError where it is not installed."""
    try:
        return metadata.version("tokenizers")
    except metadata.PackageNotFoundError:
        raise ValueError("data: bpe needs the package tokenizers: pip install 'hybrid-nas[bpe]'") from None


def key(fingerprint: str, symbols: int) -> str:
    """Of the encoding of a text: changes with all that its symbols depend on."""
    parts = [fingerprint, symbols, version(), WORD, TRAINED_ON, PIECE]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def write(folder: Path, train: NDArray[np.uint8], held_out: NDArray[np.uint8], symbols: int, name: str) -> None:
    """Find the merges in `train`, and write the symbols of both as flat files of 16-bit numbers, with the tokenizer and
    what is known of them (`about.json`). Whole or not at all. ValueError where the text has fewer merges."""
    tokenizer = learned(train, symbols, name)
    with whole(folder) as aside:
        digests, tokens = [], 0
        for part, data in (("train", train), ("held_out", held_out)):
            digest, tokens = hashlib.sha256(), 0
            with (aside / part).open("wb") as output:
                for ids in encoded(tokenizer, data):
                    output.write(ids.data)
                    digest.update(ids.data)
                    tokens += len(ids)
            digests.append(digest.digest())
        about = {
            "fingerprint": hashlib.sha256(b"".join(digests)).hexdigest(),
            "bytes_per_token": len(held_out) / tokens,
        }
        (aside / "about.json").write_text(json.dumps(about))
        tokenizer.save(str(aside / "tokenizer.json"))


def learned(train: NDArray[np.uint8], symbols: int, name: str) -> Tokenizer:
    """A tokenizer of `symbols`, whose ids below 256 are bytes; the same whenever and wherever it is made."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "isolated")
    alphabet = [chr(byte) for byte in range(BYTES)]
    trainer = trainers.BpeTrainer(
        vocab_size=symbols, initial_alphabet=alphabet, min_frequency=2, show_progress=False, special_tokens=[]
    )
    tokenizer.train_from_iterator(_sample(train), trainer)
    if (found := tokenizer.get_vocab_size()) < symbols:
        told = f"data: bpe: {name} gave {found - BYTES:,} merges (pairs that come twice or more), {found:,} symbols"
        fewer = f", or write bpe: {found} or less" if found >= SMALLEST else ""
        raise ValueError(f"{told} in place of the {symbols:,} asked for; give more text{fewer}")
    assert [tokenizer.token_to_id(letter) for letter in alphabet] == list(range(BYTES))
    return tokenizer


def encoded(tokenizer: Tokenizer, data: NDArray[np.uint8]) -> Iterator[NDArray[Any]]:
    """The symbols of `data`, some megabytes at a time."""
    batch: list[str] = []
    for piece in _pieces(data):
        batch.append(piece)
        if len(batch) == AT_ONCE:
            yield _ids(tokenizer, batch)
            batch = []
    if batch:
        yield _ids(tokenizer, batch)


def _ids(tokenizer: Tokenizer, batch: list[str]) -> NDArray[Any]:
    return np.concatenate([np.array(found.ids, "<u2") for found in tokenizer.encode_batch_fast(batch)])


def _sample(data: NDArray[np.uint8]) -> Iterator[str]:
    share = min(1.0, TRAINED_ON / max(1, len(data)))
    taken = seen = 0
    for piece in _pieces(data):
        if taken <= share * seen:
            taken += len(piece)
            yield piece
        seen += len(piece)


def _pieces(data: NDArray[np.uint8]) -> Iterator[str]:
    """`data` in pieces of at most PIECE, which end where a document does, or else a line: a word is seldom cut."""
    start = 0
    while start < len(data):
        block = data[start : start + PIECE].tobytes()
        if start + len(block) < len(data):
            end = block.rfind(b"\0", 1)
            block = block[: end if end > 0 else block.rfind(b"\n") + 1 or len(block)]
        start += len(block)
        yield block.decode("latin-1")
