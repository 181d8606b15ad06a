"""Text as bytes or symbols: where it comes from, which part is held out, and the batches that every candidate sees.

A `Corpus` says which text, as values that travel to a worker; `open_corpus` gives the `Text`. Documents are files, or
rows of JSONL and Parquet, or 16 KiB blocks where the text is one file. A document is held out by a hash of its name,
so the split depends neither on its place in the list nor on what else is there. Documents are joined by a zero byte.

The standard library is read into memory (11 MB). A text of the user's is written once as two flat byte files under
`hybrid-nas` in the user's cache folder ($XDG_CACHE_HOME, or ~/.cache) and mapped, so it may be larger than memory.
With `bpe` either is encoded once more, into so many symbols (`hybrid_nas.bpe`), kept and mapped in the same way.

A `.npz` file is text that some tokenizer made into ids: arrays `train` and `held_out` of unsigned integers, split
already, and the numbers `vocab` (ids lie below it) and `bytes_per_token`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import sysconfig
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from hybrid_nas import bpe
from hybrid_nas.cache_folder import cache_folder, whole

VOCAB = 256
SEPARATOR = b"\0"
BLOCK = 1 << 14
CHUNK = 1 << 20
ROW_SUFFIXES = {".jsonl", ".ndjson", ".parquet"}
# Left out: what is installed beside the library, generated tables, tests, and programs that are not library.
STDLIB_LEFT_OUT = {
    "site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "encodings", "pydoc_data",
    "idlelib", "turtledemo", "lib2to3", "__phello__", "ensurepip", "lib-dynload",
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Which text. `path` None is the source of Python's standard library; else a text file, a folder, JSONL,
    Parquet or .npz. `column` is the field that holds the text in JSONL and Parquet; `held_out` the share of documents
    kept for validation; `bpe` the number of symbols of a byte-pair encoding, None for bytes as they are.
    """

    path: str | None = None
    column: str = "text"
    held_out: float = 0.1
    bpe: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError(f"data: held_out is a share between 0 and 1, found {self.held_out!r}")
        if self.bpe is not None:
            try:
                bpe.check(self.bpe)
            except ValueError as error:
                raise ValueError(f"data: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Corpus:
        return cls(**data)


@dataclass(frozen=True)
class Text:
    """Tokens to train on and tokens held out, each one flat array; bytes, unless `vocab` says otherwise.
    `fingerprint` is the SHA-256 of both."""

    name: str
    train: NDArray[np.unsignedinteger[Any]]
    held_out: NDArray[np.unsignedinteger[Any]]
    fingerprint: str
    vocab: int = VOCAB
    bytes_per_token: float = 1.0

    @property
    def described(self) -> str:
        """Name, size and fingerprint, and what a token is where it is no byte."""
        kind, each = ("bytes", "") if self.of_bytes else ("tokens", f"{self.bytes_per_token:.2f} bytes a token, ")
        return (
            f"{self.name} ({len(self.train):,} {kind} to train on, {len(self.held_out):,} held out, {each}"
            f"{self.fingerprint[:12]})"
        )

    @property
    def of_bytes(self) -> bool:
        return self.vocab <= VOCAB and self.bytes_per_token == 1

    def batch(self, seed: int, step: int, sequences: int, tokens: int) -> NDArray[np.int64]:
        """`sequences` pieces of `tokens` tokens from anywhere in the training text, (sequences, tokens). Depends on
        its arguments alone: every candidate sees the same batches in the same order."""
        starts = np.random.default_rng([seed, step]).integers(0, len(self.train) - tokens + 1, sequences)
        return _pieces(self.train, starts, tokens)

    def validation(self, sequences: int, tokens: int) -> NDArray[np.int64]:
        """At most `sequences` pieces of `tokens` tokens, evenly spread over the held-out text, which they do not
        overlap in: the same for all seeds and trials, (sequences, tokens)."""
        count = min(sequences, len(self.held_out) // tokens)
        starts = np.linspace(0, len(self.held_out) - tokens, count).astype(np.int64)
        return _pieces(self.held_out, starts, tokens)

    def check(self, tokens: int) -> None:
        """ValueError where either part is too short for one sequence of `tokens` tokens."""
        for part, data in (("training", self.train), ("held-out", self.held_out)):
            if len(data) < tokens:
                raise ValueError(
                    f"data: {self.name}: the {part} text has {len(data)} tokens, one sequence needs {tokens}; "
                    "give more text or a shorter context"
                )


def open_corpus(corpus: Corpus, cache: Path | None = None) -> Text:
    """The text of `corpus`; `cache` is where the flat files go instead of the user's cache folder.

    ValueError says what is wrong with the path, the column or the text.
    """
    if corpus.bpe is not None:
        return _symbols(corpus, corpus.bpe, cache or cache_folder())
    if corpus.path is None:
        return _standard_library(corpus.held_out)
    path = Path(corpus.path).expanduser()
    if not path.exists():
        raise ValueError(f"data: {path} does not exist{_nearest(path.name, _names(path.parent))}")
    if path.suffix == ".npz":
        return _token_ids(str(path.resolve()))
    files = sorted(_files(path), key=lambda file: file.relative_to(path).as_posix()) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"data: {path} holds no file")
    stats = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    key = [str(path.resolve()), corpus.column, corpus.held_out, [(n, s.st_size, s.st_mtime_ns) for n, s in stats]]
    folder = (cache or cache_folder()) / hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    if not folder.exists():
        _write(folder, str(path), _documents(path, files, corpus.column), corpus.held_out)
    fingerprint = (folder / "fingerprint").read_text()
    return Text(str(path), _map(folder / "train"), _map(folder / "held_out"), fingerprint)


def _symbols(corpus: Corpus, symbols: int, cache: Path) -> Text:
    bpe.version()  # refused before anything is written
    if corpus.path is not None and Path(corpus.path).suffix == ".npz":
        raise ValueError(f"data: bpe: {corpus.path} holds ids of a tokenizer already; leave bpe out, or give text")
    text = open_corpus(replace(corpus, bpe=None), cache)
    folder = cache / bpe.key(text.fingerprint, symbols)
    if not folder.exists():
        bpe.write(folder, text.train, text.held_out, symbols, text.name)
    about = json.loads((folder / "about.json").read_text())
    train, held_out = (_map(folder / part, "<u2") for part in ("train", "held_out"))
    name = f"{text.name} as {symbols:,} symbols"
    return Text(name, train, held_out, about["fingerprint"], symbols, about["bytes_per_token"])


@lru_cache(maxsize=2)
def _standard_library(held_out: float) -> Text:
    root = Path(sysconfig.get_path("stdlib"))
    documents = []
    for file in sorted(root.rglob("*.py"), key=lambda file: file.relative_to(root).as_posix()):
        relative = file.relative_to(root)
        if not STDLIB_LEFT_OUT & set(relative.parts):
            documents.append((relative.as_posix(), file.read_bytes()))
    if not documents:
        raise ValueError(f"data: no source of Python's standard library in {root}; name a text of your own with data:")
    name = "Python's standard library"
    parts: dict[bool, bytearray] = {False: bytearray(), True: bytearray()}
    for is_held_out, piece in _split(documents, held_out, name):
        parts[is_held_out] += piece
    train, rest = bytes(parts[False]), bytes(parts[True])
    fingerprint = _fingerprint(hashlib.sha256(train), hashlib.sha256(rest))
    return Text(name, np.frombuffer(train, np.uint8), np.frombuffer(rest, np.uint8), fingerprint)


@lru_cache(maxsize=2)
def _token_ids(path: str) -> Text:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            train, held_out = arrays["train"], arrays["held_out"]
            vocab, ratio = int(arrays["vocab"]), float(arrays["bytes_per_token"])
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"data: {path}: arrays train and held_out and the numbers vocab and bytes_per_token must be in it ({error})"
        ) from error
    for name, ids in (("train", train), ("held_out", held_out)):
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.unsignedinteger) or not len(ids) or ids.max() >= vocab:
            raise ValueError(
                f"data: {path}: {name} must be a flat array of unsigned integers below vocab {vocab}, found shape "
                f"{ids.shape}, {ids.dtype}" + (f", largest {ids.max()}" if ids.size else "")
            )
    return Text(path, train, held_out, _fingerprint(hashlib.sha256(train), hashlib.sha256(held_out)), vocab, ratio)


def _split(documents: Iterable[tuple[str, bytes]], share: float, name: str) -> Iterator[tuple[bool, bytes]]:
    """(held out?, bytes) for pieces (name, bytes); pieces of one name in a row are one document.

    Where the hashes would leave one side empty, the last document goes to that side.
    """
    seen: set[bool] = set()
    last = waiting = None
    for key, piece in documents:
        if not piece:
            continue
        if waiting is not None:  # a piece is handed on once it is known not to be the last
            seen.add(waiting[0])
            yield waiting
        if key != last:
            last, side, joint = key, _is_held_out(key, share), SEPARATOR
        else:
            joint = b""
        waiting = side, joint + piece
    if waiting is None:
        raise ValueError(f"data: {name} holds no text")
    side, piece = waiting
    if seen <= {side}:
        if not seen:
            raise ValueError(f"data: {name} is one document of {len(piece) - 1} bytes; give more, to hold one out")
        side = not side
    yield side, piece


def _is_held_out(key: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < share * 2**64


def _documents(root: Path, files: list[Path], column: str) -> Iterator[tuple[str, bytes]]:
    for file in files:
        name = file.relative_to(root).as_posix()
        match file.suffix:
            case ".parquet":
                rows: Iterable[str] = _parquet_rows(file, column)
            case ".jsonl" | ".ndjson":
                rows = _jsonl_rows(file, column)
            case _:
                alone = len(files) == 1
                for i, piece in enumerate(_chunks(file, BLOCK if alone else CHUNK)):
                    yield (f"{name}#{i}" if alone else name), piece
                continue
        for i, row in enumerate(rows):
            yield f"{name}#{i}", row.encode("utf-8", "surrogatepass")


def _chunks(file: Path, size: int) -> Iterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(size):
            if SEPARATOR in piece:
                raise ValueError(f"data: {file} is not text (it holds a zero byte); give text, JSONL or Parquet")
            yield piece


def _jsonl_rows(file: Path, column: str) -> Iterator[str]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"data: {file}, line {number}: not JSON ({error})") from error
            if not isinstance(row, dict) or column not in row:
                names = list(row) if isinstance(row, dict) else []
                raise ValueError(f"data: {file}, line {number}: no field {column!r}{_nearest(column, names)}")
            if not isinstance(row[column], str):
                raise ValueError(f"data: {file}, line {number}: {column!r} is not text but {row[column]!r:.40}")
            yield row[column]


def _parquet_rows(file: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = pq.ParquetFile(file, memory_map=True)
    except pa.ArrowInvalid as error:
        raise ValueError(f"data: {file}: not a readable Parquet file ({error})") from error
    with source:
        names = source.schema_arrow.names
        if column not in names:
            raise ValueError(f"data: {file}: no column {column!r}{_nearest(column, names)}")
        kind = source.schema_arrow.field(column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise ValueError(f"data: {file}: column {column!r} is not text but {kind}")
        for rows in source.iter_batches(batch_size=1024, columns=[column]):
            yield from (row for row in rows.column(0).to_pylist() if row is not None)


def _write(folder: Path, name: str, documents: Iterable[tuple[str, bytes]], share: float) -> None:
    """The two flat files."""
    with whole(folder) as aside:
        digests = {False: hashlib.sha256(), True: hashlib.sha256()}
        with (aside / "train").open("wb") as train, (aside / "held_out").open("wb") as held_out:
            outputs: dict[bool, BinaryIO] = {False: train, True: held_out}
            for side, piece in _split(documents, share, name):
                outputs[side].write(piece)
                digests[side].update(piece)
        (aside / "fingerprint").write_text(_fingerprint(digests[False], digests[True]))


def _fingerprint(train: Any, held_out: Any) -> str:
    return hashlib.sha256(train.digest() + held_out.digest()).hexdigest()


def _map(file: Path, kind: str = "u1") -> NDArray[Any]:
    return np.memmap(file, kind, "r")


def _pieces(data: NDArray[np.unsignedinteger[Any]], starts: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    return np.stack([data[start : start + tokens] for start in starts]).astype(np.int64)


def _files(folder: Path) -> Iterator[Path]:
    """Files below `folder`, none that is hidden or in a hidden folder; Parquet and JSONL alone where there are any."""
    files = [
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    rows = [file for file in files if file.suffix in ROW_SUFFIXES]
    return iter(rows or files)


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []


def _nearest(name: str, known: Iterable[str]) -> str:
    """'; the nearest is ...' or, where nothing is near, what there is."""
    known = sorted(known)
    if near := difflib.get_close_matches(name, known, 1, 0.5):
        return f"; the nearest is {near[0]!r}"
    return f"; found {', '.join(map(repr, known[:8]))}" if known else ""
