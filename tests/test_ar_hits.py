"""AR hits against a reader of its own: by n-gram, by count, and by models that can and cannot look back."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from hybrid_nas import ar_hits as module
from hybrid_nas.aggregate import quantities
from hybrid_nas.ar_hits import ar_hits, check, codes, held_out, longest, per_million, repeated
from hybrid_nas.budget import Budget
from hybrid_nas.data import Text
from hybrid_nas.proxy import Proxy
from hybrid_nas.study_file import read_study
from hybrid_nas.table import Machine, Setting, fill, missing
from hybrid_nas.table_file import proposals
from hybrid_nas.tasks.known import ArHits, ar_hits_named, probe_named
from hybrid_nas.trial import read_trials

CPU = torch.device("cpu")


def zipf(count, vocab, seed):
    return np.random.default_rng(seed).zipf(1.3, count).clip(max=vocab).astype(np.int64) - 1


def of_topics(count, seed):
    """Every 50 symbols half of the text keeps to four symbols of 300."""
    generator = np.random.default_rng(seed)
    topics = generator.integers(0, 300, (count // 50, 4)).repeat(50, axis=0)
    some = topics[np.arange(len(topics)), generator.integers(0, 4, len(topics))]
    return np.where(generator.random(len(topics)) < 0.5, some, zipf(len(topics), 60, seed)).astype(np.uint16)


@pytest.fixture
def text():
    return Text("topics", of_topics(30_000, 0), of_topics(4_000, 1), "topics", vocab=300)


@pytest.mark.parametrize(("ngram", "rarest"), [(2, 300.0), (2, 40.0), (3, 40.0), (4, 1e6), (2, 0.0)])
def test_hits_are_those_found_symbol_by_symbol(text, ngram, rarest):
    rows = text.validation(20, 65)
    train = text.train.tolist()
    counts = Counter(tuple(train[i : i + ngram]) for i in range(len(train) - ngram + 1))
    wanted = np.zeros(rows.shape, bool)
    for r, row in enumerate(rows.tolist()):
        seen = set()
        for t in range(ngram - 1, len(row)):
            gram = tuple(row[t - ngram + 1 : t + 1])
            wanted[r, t] = gram in seen and counts[gram] / sum(counts.values()) * 1e6 <= rarest
            seen.add(gram)
    assert wanted.any()
    assert np.array_equal(ar_hits(text, rows, ArHits(ngram, rarest)), wanted)


def test_the_example_drawn():
    """a b c a b d b c d, where `a b` is frequent and `b c` rare."""
    drawn = [line.strip() for line in (ar_hits.__doc__ or "").splitlines()]
    tokens, marks = (next(line for line in drawn if line.startswith(word))[10:] for word in ("tokens", "hits"))
    row = np.array([[ord(symbol) for symbol in tokens[::2]]])
    train = np.frombuffer(b"xy" * 5000 + b"ab" * 500 + b"bc", np.uint8)
    found = ar_hits(Text("t", train, row[0].astype(np.uint8), "drawn"), row, ArHits(2, 200))
    assert [2 * place for place in np.flatnonzero(found[0])] == [i for i, mark in enumerate(marks) if mark == "^"]


def test_counts_over_pieces_of_the_training_text(monkeypatch):
    train = zipf(10_000, 40, 3).astype(np.uint8)
    counts = Counter(zip(train[:-2].tolist(), train[1:-1].tolist(), train[2:].tolist(), strict=True))
    wanted = np.unique(np.append(codes(train[:900].astype(np.int64), 3, 256), [255 * 256 * 256 + 255]))
    monkeypatch.setattr(module, "CHUNK", 333)
    found = per_million(wanted, train, 3, 256) * (len(train) - 2) / 1e6
    grams = [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in wanted]
    assert found == pytest.approx([counts[gram] for gram in grams])
    # Where only part is counted, rates are those of the whole but for chance.
    monkeypatch.setattr(module, "COUNTED", 4_000)
    part = per_million(wanted, train, 3, 256)
    most = int(np.argmax(found))
    assert part[most] == pytest.approx(found[most] * 1e6 / (len(train) - 2), rel=0.3)
    assert part.sum() != found.sum()


def test_the_longest_ngram_is_one_number():
    assert (longest(256), longest(4096), longest(50_257)) == (7, 5, 4)
    assert codes(np.full((1, 7), 255), 7, 256).tolist() == [[256**7 - 1]]
    assert not repeated(np.array([[1, 1]]), 3, 256).any()


class LooksBack(torch.nn.Module):
    """The symbol that followed this one last time, surely; else a uniform guess."""

    def forward(self, tokens):
        guess = torch.zeros((*tokens.shape, 300))
        for row in range(len(tokens)):
            last: dict[int, int] = {}
            for place, symbol in enumerate(tokens[row].tolist()):
                if place:
                    last[int(tokens[row, place - 1])] = symbol
                if symbol in last:
                    guess[row, place, last[symbol]] = 12.0
        return guess


class Uniform(torch.nn.Module):
    def forward(self, tokens):
        return torch.zeros((*tokens.shape, 300))


def test_a_model_that_looks_back_knows_the_hits_and_no_others():
    """Each sequence is half of noise and the same half again: all of the second half are hits, but for its first."""
    generator = np.random.default_rng(0)
    halves = [generator.permutation(300)[:32] for _ in range(40)]
    rest = np.concatenate([np.concatenate([half, half, [0]]) for half in halves])
    text = Text("copies", generator.integers(0, 300, 40_000).astype(np.uint16), rest.astype(np.uint16), "c", vocab=300)
    budget = Budget(validation_tokens=40 * 64, probes=("ar_hits(rarest=1000)", "beyond"))
    proxy = Proxy(text, 64, budget, 0)
    scores, blind = proxy.scores(LooksBack(), CPU), proxy.scores(Uniform(), CPU)
    assert scores["ar_hits_share"] == pytest.approx(31 / 64)
    assert scores["ar_hits"] == pytest.approx(np.log(1 + 299 * np.exp(-12.0)), abs=1e-4)
    assert scores["ar_hits_other"] > 5
    assert blind["ar_hits"] == blind["ar_hits_other"] == pytest.approx(np.log(300))
    # Parts of the held-out loss, of the same tokens.
    share, whole = scores["ar_hits_share"], proxy.loss(LooksBack(), CPU)
    assert share * scores["ar_hits"] + (1 - share) * scores["ar_hits_other"] == pytest.approx(whole, rel=1e-5)
    assert "score" not in scores


def test_several_settings_take_one_pass_and_seeds_see_the_same_tokens(text):
    class Counting(Uniform):
        passes = 0

        def forward(self, tokens):
            self.passes += 1
            return super().forward(tokens)

    names = ("ar_hits(ngram=2, rarest=300)", "ar_hits(ngram=3, rarest=300)")
    budget = Budget(validation_tokens=640, probes=names)
    model = Counting()
    scores = Proxy(text, 64, budget, 0).scores(model, CPU)
    assert model.passes == 1
    assert set(scores) == {f"{name}{part}" for name in names for part in ("", "_other", "_share")}
    assert scores == Proxy(text, 64, budget, 7).scores(model, CPU)
    assert held_out(text, 64, budget).shape == (10, 65)


def test_trainings_at_once_count_once(text, monkeypatch):
    counted = []
    plain = module.per_million
    monkeypatch.setattr(module, "per_million", lambda *given: counted.append(1) or plain(*given))
    rows = text.validation(12, 65)
    threads = [threading.Thread(target=ar_hits, args=(text, rows, ArHits(2, 123.0))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 1


def test_names_and_what_is_wrong_with_them(text):
    assert ar_hits_named("ar_hits") == ArHits(None, 10.0)
    assert ar_hits_named("ar_hits(ngram=3, rarest=0.125)") == ArHits(3, 0.125)
    assert probe_named("ar_hits").tokens(128) == 128
    with pytest.raises(ValueError, match="sizes are written NAME\\(size=16\\); its sizes are ngram, rarest"):
        probe_named("ar_hits(grams=2)")
    with pytest.raises(ValueError, match="ngram is a whole number of symbols, 2 or more, found 1"):
        probe_named("ar_hits(ngram=1)")
    with pytest.raises(ValueError, match=r"ngram is a whole number of symbols, 2 or more, found 2\.5"):
        probe_named("ar_hits(ngram=2.5)")
    with pytest.raises(ValueError, match="rarest is the most occurrences in a million training tokens"):
        probe_named("ar_hits(rarest=2000000)")
    with pytest.raises(ValueError, match="budget: tasks: unknown task 'ar_hits'"):
        Budget(tasks=("ar_hits",))
    with pytest.raises(ValueError, match="unknown probe 'ar_hit'; did you mean ar_hits"):
        probe_named("ar_hit")
    with pytest.raises(ValueError, match="ar_hits: ngram is at most 7 at 300 different tokens, found 8"):
        check(text, 64, Budget(probes=("ar_hits(ngram=8)",)))
    plain = Text("ab", text.train, np.arange(260, dtype=np.uint16), "ab", vocab=300)
    with pytest.raises(ValueError, match="of 260 held-out tokens 0 complete 2 symbols that stood earlier"):
        check(plain, 64, Budget(probes=("ar_hits",), validation_tokens=256))


def test_bytes_take_five_and_a_vocabulary_two(text):
    rows = text.validation(20, 65)
    assert np.array_equal(ar_hits(text, rows, ArHits(None, 300)), ar_hits(text, rows, ArHits(2, 300)))
    small = Text("small", text.train % 5, text.held_out % 5, "small")
    assert np.array_equal(ar_hits(small, rows % 5, ArHits(None, 1e6)), ar_hits(small, rows % 5, ArHits(5, 1e6)))


def test_it_may_be_an_objective():
    space = "name: s\nratio: [1:1, 0:1]\nobjectives: [ar_hits, cache_bytes]\n"
    with pytest.raises(ValueError, match="nothing measures ar_hits; name it once under budget: tasks or probes"):
        read_study(space, "s.yaml")
    file = read_study(space + "budget: {probes: [ar_hits]}\n", "s.yaml")
    assert next((o.name, o.direction, o.trained) for o in file.objectives) == ("ar_hits", "minimize", True)


def test_a_search_and_a_table_record_it(tmp_path, nas):
    (tmp_path / "s.yaml").write_text(
        "name: s\nratio: [1:1, 0:1]\nd_state: 16\nproxy: {width: 32, params: 60000, ffn_hidden: 64, context: 64}\n"
        "budget: {tokens: 2048, batch: 4, validation_tokens: 4096, rungs: [], replicates: 0, recall_symbols: 8,\n"
        "         probes: ['ar_hits(ngram=4, rarest=30)']}\n"
    )
    nas("search", "s.yaml", "--trials", "2", "--workers", "1", "--out", "run")
    file = read_study((tmp_path / "s.yaml").read_text(), "s.yaml")
    jobs, table = missing(proposals([file], None), 1, []), []
    assert fill(jobs, Setting(64, file.budget, file.data), Machine("cpu"), None, table.append) == []
    for trials in (read_trials(tmp_path / "run/trials.parquet"), table):
        assert len(trials) == 2
        shares = {trial.values["ar_hits_share"] for trial in trials}
        assert len(shares) == 1
        assert 0 < min(shares) < 0.2
        for trial in trials:
            hits, others, share = (trial.values[f"ar_hits{part}"] for part in ("", "_other", "_share"))
            assert share * hits + (1 - share) * others == pytest.approx(trial.values["loss"], rel=1e-5)
            assert quantities(trial)["ar_hits"] == -hits
            assert 3 < hits < 7
    assert {t.values["ar_hits"] for t in table} == {
        t.values["ar_hits"] for t in read_trials(tmp_path / "run/trials.parquet")
    }


@pytest.mark.parametrize("command", [("search",), ("table", "--out", "t.parquet")])
def test_no_hit_is_said_before_anything_is_trained(command, tmp_path, nas):
    (tmp_path / "s.yaml").write_text("name: s\nratio: [1:1]\nbudget: {probes: ['ar_hits(ngram=2, rarest=0)']}\n")
    found = nas(*command, "s.yaml", check=2)
    assert "none of these stands at most 0 times in a million training tokens" in " ".join(found.stderr.split())
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]
