"""Text: split by document, the same everywhere, larger than memory, and errors that teach."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hybrid_nas.data import BLOCK, Corpus, Text, open_corpus

LIBRARY = Corpus()


def documents(count: int) -> list[str]:
    return [f"document {i}: " + f"{i * i} " * 40 for i in range(count)]


def sides(text: Text) -> tuple[set[str], set[str]]:
    """Documents of each side, by their first words."""
    train, held_out = (
        {piece.split(":")[0] for piece in bytes(part).decode().split("\0") if piece}
        for part in (text.train, text.held_out)
    )
    return train, held_out


def test_the_standard_library_is_source_without_tests() -> None:
    text = open_corpus(LIBRARY)
    train, held_out = bytes(text.train), bytes(text.held_out)
    assert len(train) + len(held_out) > 5_000_000
    assert 0.05 < len(held_out) / (len(train) + len(held_out)) < 0.15
    assert (b"class JSONDecoder(object)" in train) != (b"class JSONDecoder(object)" in held_out)
    assert b"class AbstractMemoryTests" not in train + held_out  # of test_memoryview


def test_every_file_is_on_one_side() -> None:
    import sysconfig

    text = open_corpus(LIBRARY)
    root = Path(sysconfig.get_path("stdlib"))
    train, held_out = (set(bytes(part).split(b"\0")) for part in (text.train, text.held_out))
    for name in ("json/decoder.py", "argparse.py", "asyncio/events.py", "heapq.py", "tarfile.py", "typing.py"):
        source = (root / name).read_bytes()
        share = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 2**64
        assert source in (held_out if share < 0.1 else train), name
    assert max(map(len, train & held_out)) < 60  # one-line __init__.py of two packages may be equal


def test_batches_are_equal_in_another_process_and_another_folder(tmp_path: Path) -> None:
    text = open_corpus(LIBRARY)
    here = [text.fingerprint, *(hashlib.sha256(text.batch(3, step, 4, 33).tobytes()).hexdigest() for step in range(3))]
    code = (
        "import hashlib; from hybrid_nas.data import *; t = open_corpus(Corpus());"
        "print(t.fingerprint, *(hashlib.sha256(t.batch(3, s, 4, 33).tobytes()).hexdigest() for s in range(3)))"
    )
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == here


def test_batches_depend_on_seed_and_step_and_come_from_the_text() -> None:
    text = open_corpus(LIBRARY)
    batch = text.batch(0, 0, 8, 65)
    assert np.array_equal(batch, text.batch(0, 0, 8, 65))
    assert not np.array_equal(batch, text.batch(1, 0, 8, 65))
    assert not np.array_equal(batch, text.batch(0, 1, 8, 65))
    source = bytes(text.train)
    assert all(bytes(row.astype(np.uint8)) in source for row in batch)


def test_validation_is_spread_over_the_held_out_text_without_overlap() -> None:
    data = np.arange(100, dtype=np.uint8)
    text = Text("numbers", data[:50], data, "")
    rows = text.validation(4, 10)
    assert rows[:, 0].tolist() == [0, 30, 60, 90]
    assert text.validation(99, 10)[:, 0].tolist() == list(range(0, 100, 10))


def test_rows_of_jsonl_and_parquet_are_split_by_row_and_agree(tmp_path: Path) -> None:
    rows = documents(60)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row, "n": 1}) + "\n" for row in rows))
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet", row_group_size=7)
    texts = [
        open_corpus(Corpus(str(tmp_path / name), held_out=0.2), tmp_path / "cache") for name in ("a.jsonl", "a.parquet")
    ]
    assert texts[0].fingerprint == texts[1].fingerprint
    train, held_out = sides(texts[0])
    assert not train & held_out
    assert train | held_out == {f"document {i}" for i in range(60)}
    assert 5 <= len(held_out) <= 20


def test_a_row_keeps_its_side_when_rows_are_added(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": documents(40)}), file)
    before = sides(open_corpus(Corpus(str(file)), tmp_path / "cache"))
    pq.write_table(pa.table({"text": documents(80)}), file)
    after = sides(open_corpus(Corpus(str(file)), tmp_path / "cache"))
    assert before[0] <= after[0]
    assert before[1] <= after[1]
    assert after[1] - before[1]


def test_a_folder_is_split_by_file_and_hidden_files_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret: " * 9)
    for i, row in enumerate(documents(40)):
        (folder / ("deep" if i % 2 else ".") / f"{i}.txt").write_text(row)
    train, held_out = sides(open_corpus(Corpus(str(folder)), tmp_path / "cache"))
    assert train | held_out == {f"document {i}" for i in range(40)}
    assert held_out
    assert not train & held_out


def test_one_file_is_split_in_blocks_and_mapped_not_read(tmp_path: Path) -> None:
    file = tmp_path / "long.txt"
    file.write_bytes(bytes(32 + i % 90 for i in range(40 * BLOCK)))
    text = open_corpus(Corpus(str(file)), tmp_path / "cache")
    assert isinstance(text.train, np.memmap)
    assert len(text.held_out) % (BLOCK + 1) == 0  # whole blocks, each behind a separator
    assert len(text.train) + len(text.held_out) == 40 * (BLOCK + 1)


def test_the_flat_files_are_written_once_and_again_after_a_change(tmp_path: Path) -> None:
    file, cache = tmp_path / "a.txt", tmp_path / "cache"
    file.write_text("one " * 2 * BLOCK)
    first = open_corpus(Corpus(str(file)), cache)
    (folder,) = cache.iterdir()
    stamp = (folder / "train").stat().st_mtime_ns
    assert open_corpus(Corpus(str(file)), cache).fingerprint == first.fingerprint
    assert (folder / "train").stat().st_mtime_ns == stamp
    file.write_text("two! " * 2 * BLOCK)
    assert open_corpus(Corpus(str(file)), cache).fingerprint != first.fingerprint
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "does not exist; the nearest is 'missin.txt'"),
        ("empty.txt", b"", "holds no text"),
        ("short.txt", b"too short", "one document of 9 bytes"),
        ("binary.txt", b"ab\0cd" * 9, "zero byte"),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', "line 2: not JSON"),
        ("other.jsonl", b'{"texts": "a"}\n', "line 1: no field 'text'; the nearest is 'texts'"),
        ("number.jsonl", b'{"text": 3}\n', "line 1: 'text' is not text but 3"),
        ("list.jsonl", b"[1]\n", "line 1: no field 'text'"),
        ("bad.parquet", b"not parquet", "not a readable Parquet file"),
    ],
)
def test_errors_teach(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    (tmp_path / "missin.txt").write_text("a")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        open_corpus(Corpus(str(tmp_path / name)), tmp_path / "cache")
    assert message in str(error.value)
    assert not list((tmp_path / "cache").glob("*")) if (tmp_path / "cache").exists() else True


def test_a_missing_parquet_column_names_the_nearest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["a"], "n": [1]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="no column 'contents'; the nearest is 'content'"):
        open_corpus(Corpus(str(tmp_path / "a.parquet"), column="contents"), tmp_path / "cache")
    with pytest.raises(ValueError, match="column 'n' is not text but int64"):
        open_corpus(Corpus(str(tmp_path / "a.parquet"), column="n"), tmp_path / "cache")


def test_too_short_for_one_sequence() -> None:
    data = np.zeros(40, np.uint8)
    Text("x", data, data, "").check(40)
    with pytest.raises(ValueError, match="the held-out text has 40 tokens, one sequence needs 41"):
        Text("x", np.zeros(99, np.uint8), data, "").check(41)


def test_held_out_is_a_share() -> None:
    with pytest.raises(ValueError, match=r"held_out is a share between 0 and 1, found 1\.5"):
        Corpus(held_out=1.5)
    corpus = Corpus("a.txt", "body", 0.2)
    assert Corpus.from_dict(json.loads(json.dumps(corpus.to_dict()))) == corpus
