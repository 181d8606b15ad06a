"""Byte-pair encoding of text: exact, equal everywhere, made once, and a study on it."""

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections import Counter
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from hybrid_nas import bpe
from hybrid_nas.cli import app
from hybrid_nas.data import Corpus, open_corpus
from hybrid_nas.run_folder import Run
from hybrid_nas.schema import study_schema
from hybrid_nas.study_file import read_study
from hybrid_nas.trial import read_trials

SIGNS = ["and", "naïve", "東京,", "42", "+", "17", "=", "59\n\n  "]
STUDY = """
name: pairs
ratio: [1:1, 0:1]
d_state: 16
proxy: {width: 32, params: 60000, ffn_hidden: 64, context: 32, tokens: 1024, batch: 4, validation_tokens: 512,
        rungs: [0.5], recall_symbols: 8, replicates: 0, probes: [ar_hits(rarest=1000000)]}
search: {trials: 2, sampler: random, workers: 1}
data: {path: texts, bpe: 300}
"""


def documents(count: int) -> list[bytes]:
    """Of words whose letters and whose places are unevenly frequent, as in a language."""
    rng = np.random.default_rng(0)
    letters = list("etaoinshrdlu")
    words = ["".join(rng.choice(letters, rng.integers(2, 9), p=np.arange(12, 0, -1) / 78)) for _ in range(200)]
    often = 1 / np.arange(1, len(words + SIGNS) + 1)
    return [f"{i}: {' '.join(rng.choice(words + SIGNS, 150, p=often / often.sum()))}".encode() for i in range(count)]


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of documents, one of them no UTF-8, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "texts"
    folder.mkdir()
    for i, document in enumerate(documents(60)):
        (folder / f"{i}.txt").write_bytes(document)
    (folder / "latin.txt").write_bytes("façade, \x85\xa0 öde".encode("latin-1") + bytes(range(1, 256)))
    return folder


def meanings(folder: Path) -> list[bytes]:
    """What each symbol stands for, by the tokenizer that is kept beside them: read as JSON, without the library."""
    (about,) = folder.glob("*/tokenizer.json")
    vocabulary = json.loads(about.read_text())["model"]["vocab"]
    return [symbol.encode("latin-1") for symbol in sorted(vocabulary, key=vocabulary.get)]


def test_the_symbols_give_the_bytes_back_and_are_split_as_they_are(texts: Path, tmp_path: Path) -> None:
    of_bytes, text = open_corpus(Corpus(str(texts))), open_corpus(Corpus(str(texts), bpe=400))
    known = meanings(tmp_path / "cache" / "hybrid-nas")
    assert len(known) == text.vocab == 400
    assert known[:256] == [bytes([byte]) for byte in range(256)]
    for part, whole in ((text.train, of_bytes.train), (text.held_out, of_bytes.held_out)):
        assert part.dtype == np.uint16
        assert b"".join(known[i] for i in part) == whole.tobytes()
        assert np.count_nonzero(part == 0) == np.count_nonzero(whole == 0)  # a document's beginning stays one symbol
    assert text.bytes_per_token == len(of_bytes.held_out) / len(text.held_out) > 1.5
    assert (
        text.fingerprint
        == hashlib.sha256(
            hashlib.sha256(text.train.tobytes()).digest() + hashlib.sha256(text.held_out.tobytes()).digest()
        ).hexdigest()
    )
    assert "as 400 symbols" in text.described
    assert f"{text.bytes_per_token:.2f} bytes a token" in text.described


def test_merges_are_those_of_the_definition() -> None:
    """Beside a slow one written out: the pair that comes most is joined, over and over."""
    text = b"\0" + b"\0".join(documents(60))
    found = json.loads(bpe.learned(np.frombuffer(text, np.uint8), 296, "words").to_str())["model"]["merges"]
    words = Counter(re.findall(r" ?[A-Za-z\x80-\xff]+", text.decode("latin-1")))  # no other words here repeat so much
    split = {tuple(word): n for word, n in words.items()}
    for merge in found:
        counts = Counter[tuple[str, ...]]()
        for word, n in split.items():
            for pair in itertools.pairwise(word):
                counts[pair] += n
        assert counts[tuple(merge)] == max(counts.values())
        split = {_joined(word, tuple(merge)): n for word, n in split.items()}


def _joined(word: tuple[str, ...], pair: tuple[str, ...]) -> tuple[str, ...]:
    parts = list(word)
    for i in range(len(parts)):
        if tuple(parts[i : i + 2]) == pair:
            parts[i : i + 2] = ["".join(pair)]
    return tuple(parts)


def test_a_word_is_never_joined_with_the_next(texts: Path, tmp_path: Path) -> None:
    open_corpus(Corpus(str(texts), bpe=600))
    for symbol in meanings(tmp_path / "cache" / "hybrid-nas")[256:]:
        assert symbol.strip(b" ") == b"" or b" " not in symbol[1:], symbol
        assert b"\0" not in symbol


def test_two_processes_find_the_same_at_once(texts: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from hybrid_nas.data import *;"
        "print(open_corpus(Corpus(sys.argv[1], bpe=500), Path(sys.argv[2])).fingerprint)"
    )
    caches = ["one", "one", "one", "two"]  # three of them beside each other in one
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(texts), str(tmp_path / cache)],
            env={**os.environ, "PYTHONPATH": path, "RAYON_NUM_THREADS": str(1 + i % 2)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, cache in enumerate(caches)
    ]
    said = [process.communicate(timeout=60) for process in running]
    assert {out.strip() for out, _ in said} == {open_corpus(Corpus(str(texts), bpe=500)).fingerprint}, said
    assert sorted(len(list((tmp_path / cache).iterdir())) for cache in ("one", "two")) == [2, 2]  # no partial one


def test_an_encoding_is_made_once_and_changes_with_what_it_is_of(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_corpus(Corpus(str(texts), bpe=400))
    with monkeypatch.context() as patch:
        patch.setattr(bpe, "learned", None)  # nothing is trained again
        again = open_corpus(Corpus(str(texts), bpe=400))
    assert isinstance(again.train, np.memmap)
    assert again.fingerprint == first.fingerprint
    others = {open_corpus(Corpus(str(texts), bpe=n)).fingerprint for n in (None, 401)}
    (texts / "0.txt").write_text("another text " * 90)
    others.add(open_corpus(Corpus(str(texts), bpe=400)).fingerprint)
    assert len(others | {first.fingerprint}) == 4
    made = bpe.key(first.fingerprint, 400)
    monkeypatch.setattr(metadata, "version", lambda name: "99.0")
    assert bpe.key(first.fingerprint, 400) != made


def test_what_breaks_off_leaves_nothing(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bpe, "_ids", interrupted)
        with pytest.raises(KeyboardInterrupt):
            open_corpus(Corpus(str(texts), bpe=400))
    assert len(list((tmp_path / "cache" / "hybrid-nas").iterdir())) == 1  # the bytes
    assert open_corpus(Corpus(str(texts), bpe=400)).vocab == 400


def test_pieces_end_with_documents_or_lines_and_a_sample_is_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "PIECE", 64)
    text = b"\0" + b"\0".join([b"one line\n" * 20, b"word " * 30, *[b"short"] * 90])
    data = np.frombuffer(text, np.uint8)
    pieces = list(bpe._pieces(data))
    assert "".join(pieces).encode("latin-1") == text
    assert max(map(len, pieces)) <= 64
    assert all(piece.endswith("\n") for piece in pieces[:2])
    assert sum(piece.startswith("\0") for piece in pieces[-8:]) == 8
    monkeypatch.setattr(bpe, "TRAINED_ON", len(text) // 4)
    taken = list(bpe._sample(data))
    assert abs(sum(map(len, taken)) - len(text) / 4) <= 64
    places = [pieces.index(piece) for piece in taken if pieces.count(piece) == 1]
    assert places == sorted(places)
    monkeypatch.setattr(bpe, "TRAINED_ON", len(text))
    assert list(bpe._sample(data)) == pieces


@pytest.mark.parametrize("symbols", [256, 65_537, True, 400.5, "400"])
def test_a_wrong_number_of_symbols_is_refused(symbols: object) -> None:
    with pytest.raises(
        ValueError, match=r"^data: bpe: a whole number of symbols from 257 .* to 65,536 must stand here"
    ):
        Corpus.from_dict({"bpe": symbols})


def test_too_little_text_says_how_many_merges_it_gave(texts: Path, tmp_path: Path) -> None:
    said = r"gave [\d,]+ merges .* 5,000 asked for; give more text, or write bpe: \d+ or less"
    with pytest.raises(ValueError, match=said) as error:
        open_corpus(Corpus(str(texts), bpe=5000))
    most = int(str(error.value).split("write bpe: ")[1].split()[0])
    assert open_corpus(Corpus(str(texts), bpe=most)).vocab == most
    assert len(list((tmp_path / "cache" / "hybrid-nas").iterdir())) == 2  # the bytes and the encoding that there is


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bpe: 300", "bpe: 256", "pairs.yaml:8: data: bpe: a whole number of symbols from 257"),
        ("bpe: 300", "bpe: 70k", "pairs.yaml:8: data: bpe: a whole number of symbols from 257"),
        ("bpe: 300", "bpe: true", "pairs.yaml:8: data: bpe: a whole number of symbols from 257"),
        ("bpe: 300", "bpe: many", "pairs.yaml:8: data: bpe: a whole number, or one like 200k"),
        ("bpe: 300", "bpe: 300.5", "pairs.yaml:8: data: bpe: a whole number, or one like 200k"),
        ("path: texts", "path: ids.npz", "pairs.yaml:8: data: bpe: a .npz holds ids of a tokenizer already"),
        ("path: texts", "column: body", "pairs.yaml:8: data: a path must stand here"),
        ("bpe: 300", "bpb: 300", "unknown key 'bpb' in data; did you mean 'bpe'?"),
        ("width: 32,", "width: 32, vocab: 256,", "pairs.yaml:5: proxy: vocab must be at least the 300 symbols of data"),
    ],
)
def test_a_study_file_is_refused_at_its_line(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        read_study(STUDY.replace(old, new), "pairs.yaml")
    assert message in str(error.value)


def test_the_proxy_has_the_vocabulary_of_the_text_unless_it_says_more() -> None:
    file = read_study(STUDY, "pairs.yaml")
    assert file.proxy.vocab == 300
    assert read_study(json.dumps(file.to_dict()), "pairs.yaml") == file
    assert read_study(STUDY.replace("width: 32,", "width: 32, vocab: 512,"), "pairs.yaml").proxy.vocab == 512
    alone = read_study("ratio: 1:1\ndata: {bpe: 4k}", "a.yaml")
    assert (alone.data, alone.proxy.vocab) == ({"bpe": 4000}, 4000)
    named = read_study("ratio: 1:1\nproxy: quick\ndata: {bpe: 4096}", "a.yaml")
    plain = read_study("ratio: 1:1\nproxy: quick", "a.yaml")
    assert named.proxy == plain.proxy.with_changes(vocab=4096)
    assert (named.budget, named.objectives) == (plain.budget, plain.objectives)
    put = read_study("ratio: 1:1\ndata: corpus/", "a.yaml", ("data.bpe=300",), Path("/text"))
    assert put.data == {"path": "/text/corpus", "bpe": 300}
    assert len({file.identity, read_study(STUDY, "pairs.yaml", ("data.bpe=301",)).identity}) == 2
    schema = Draft202012Validator(study_schema())
    assert schema.is_valid({"ratio": "1:1", "data": {"bpe": 4096}})
    assert schema.is_valid(file.to_dict())
    assert not schema.is_valid({"ratio": "1:1", "data": {"column": "body"}})


def test_without_the_library_the_extra_is_named_and_nothing_is_written(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    (tmp_path / "pairs.yaml").write_text(STUDY)
    monkeypatch.setattr(metadata, "version", absent)
    done = CliRunner().invoke(app, ["search", str(tmp_path / "pairs.yaml"), "--out", str(tmp_path / "run")])
    assert isinstance(done.exception, ValueError)  # which the command ends with as exit code 2
    assert str(done.exception).endswith("data: bpe needs the package tokenizers: pip install 'hybrid-nas[bpe]'")
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_a_search_on_symbols_from_end_to_end(texts: Path, tmp_path: Path) -> None:
    """Trials, hits of symbols, the report's words; another bpe is another study; a table and a plain training."""
    space, out = tmp_path / "pairs.yaml", tmp_path / "run"
    space.write_text(STUDY)
    run = CliRunner().invoke
    command = ["search", str(space), "--out", str(out)]
    done = run(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "as 300 symbols (" in done.output
    trials = read_trials(out / "trials.parquet")
    assert [trial.state for trial in trials] == ["complete"] * 2
    uniform = np.log(300)
    for trial in trials:
        assert trial.proxy.vocab == 300
        assert 0 < trial.values["ar_hits_share"] < 1
        assert 0 < trial.values["ar_hits"] < 1.5 * uniform
    report = (out / "report.html").read_text()
    text = open_corpus(Corpus(str(texts), bpe=300))
    assert f"a token is {text.bytes_per_token:.2f} bytes of text on average" in report
    assert "nats/byte" not in report
    assert Run(out).text(read_study(STUDY, "pairs.yaml")) == text.described
    with pytest.raises(ValueError, match=r"another study .*data\.bpe was 300, is 310"):
        run(app, [*command, "--set", "data.bpe=310"], catch_exceptions=False)
    assert run(app, command, catch_exceptions=False).exit_code == 0
    assert len(read_trials(out / "trials.parquet")) == 2
    part = tmp_path / "part.parquet"
    table = ["table", str(space), "--seeds", "1", "--designs", "1", "--out", str(part), "--device", "cpu", "--json"]
    assert json.loads(run(app, table, catch_exceptions=False).stdout)["trained"] == 1
    options = ["--scale", "proxy", "--context", "32", "--tokens", "256", "--out", str(tmp_path / "trained")]
    assert run(app, ["train", f"{out}#0", *options], catch_exceptions=False).exit_code == 0
    logged = [json.loads(line) for line in (tmp_path / "trained" / "log.jsonl").read_text().splitlines()]
    assert abs(logged[0]["loss"] - uniform) < 1
