"""Each task against a reader of its own that solves it from the description, symbol by symbol."""

import numpy as np
import pytest

from hybrid_nas.budget import Budget
from hybrid_nas.tasks import MAD, NAMES
from hybrid_nas.tasks.known import MAD_SIZES, TASKS, probe_named, task_named
from hybrid_nas.tasks.long_range import MARK
from hybrid_nas.tasks.sequences import FIRST

LENGTH = 96


def drawn(name, sequences=24, tokens=LENGTH, seed=0, **changes):
    return task_named(name).draw(sequences, tokens, np.random.default_rng(seed), **changes)


def solved(read, name, **sizes):
    """`read(row, place)` must give every scored symbol from those before; returns the share of symbols scored."""
    tokens, scored = drawn(name, **sizes)
    for row, marks in zip(tokens, scored, strict=True):
        for place in np.flatnonzero(marks):
            assert read(list(row[:place])) == row[place], (name, list(row), place)
    return scored.mean()


def last_after(before, least=1):
    """What followed the last occurrence of the last symbol."""
    for place in range(len(before) - 2, -1, -1):
        if before[place] == before[-1]:
            return before[place + 1]
    return None


def test_names_and_functions_are_the_same_set():
    assert set(NAMES) == set(TASKS)
    assert set(MAD_SIZES) == set(MAD)
    for settings in MAD_SIZES.values():
        for name in settings:
            tokens, scored = drawn(name, 2, 256)
            assert tokens.shape == scored.shape == (2, 256)
            assert 0 <= tokens.min() <= tokens.max() < 512
            assert scored.any()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_each_docstring_draws_an_example_whose_marks_stand_under_symbols(name):
    lines = [line.strip() for line in (TASKS[name].function.__doc__ or "").splitlines()]
    (first, *_) = [i for i, line in enumerate(lines) if line.startswith("tokens ")]
    assert lines[first + 1].startswith("scored ")
    symbols, marks = (
        line.removeprefix(word)[3:] for line, word in zip(lines[first:], ("tokens", "scored"), strict=False)
    )
    row, scored = symbols[::2], [place // 2 for place, mark in enumerate(marks) if mark == "^"]
    assert scored
    assert all(row[place].strip() for place in scored)
    if name in ("in_context_recall", "noisy_recall", "mqar", "induction"):
        assert all(last_after(row[:place]) == row[place] for place in scored)


@pytest.mark.parametrize("name", sorted(name for name, task in TASKS.items() if not task.of_text))
def test_a_seed_gives_the_same_sequences_and_another_gives_others(name):
    one, again, other = (drawn(name, seed=seed)[0] for seed in (3, 3, 4))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.min() >= FIRST


@pytest.mark.parametrize("name", ["in_context_recall(vocab=16)", "in_context_recall(vocab=32)", "induction", "mqar"])
def test_what_followed_the_same_symbol_solves_them(name):
    assert solved(last_after, name) > 0.05


def test_in_context_recall_scores_a_value_only_where_its_key_came_before():
    tokens, scored = drawn("in_context_recall(vocab=32)")
    for row, marks in zip(tokens, scored, strict=True):
        for place in range(1, LENGTH, 2):
            assert marks[place] == (row[place - 1] in row[: place - 1 : 2])
        assert not marks[0::2].any()


def test_noisy_recall_is_in_context_recall_once_the_noise_is_taken_out():
    tokens, scored = drawn("noisy_recall(noise=0.4)")
    noise = tokens >= FIRST + 16
    assert 0.2 < noise.mean() < 0.4  # noise falls between pairs, and a pair takes two places
    assert not (noise & scored).any()
    for row, marks, out in zip(tokens, scored, noise, strict=True):
        kept, kept_marks = row[~out], marks[~out]
        for place in np.flatnonzero(kept_marks):
            assert last_after(list(kept[:place])) == kept[place]


def test_fuzzy_recall_is_known_from_all_symbols_of_a_key():
    """A key is a motif; the longest stretch that came before tells what follows it."""
    tokens, scored = drawn("fuzzy_recall", tokens=160)
    right = total = 0
    for row, marks in zip(tokens, scored, strict=True):
        for place in np.flatnonzero(marks):
            before, best, guess = list(row[:place]), 0, None
            for start in range(1, place):
                length = 0
                while length < start and before[start - 1 - length] == before[place - 1 - length]:
                    length += 1
                if length > best:
                    best, guess = length, before[start]
            right += guess == row[place]
            total += 1
    assert right / total > 0.9  # a value's symbol may itself be the beginning of two values
    assert total > 200


def test_selective_copying_gives_the_symbols_back_in_order():
    tokens, scored = drawn("selective_copying(copied=12)")
    blank, mark = FIRST + 14, FIRST + 15
    for row, marks in zip(tokens, scored, strict=True):
        symbols = [s for s in row[: LENGTH - 13] if s != blank]
        assert len(symbols) == 12
        assert row[LENGTH - 13] == mark
        assert list(row[LENGTH - 12 :]) == symbols
        assert list(np.flatnonzero(marks)) == list(range(LENGTH - 12, LENGTH))


def test_compression_asks_for_every_place_once():
    def read(before):
        length = (LENGTH - 1) // 3
        return before[before[-1] - (FIRST + 16 + 1)] if before[length] == FIRST + 16 else None

    assert solved(read, "compression") == pytest.approx(((LENGTH - 1) // 3) / LENGTH)


def test_memorization_has_one_dictionary_for_all_seeds():
    table = {}
    for seed in (0, 1, 2):
        tokens, scored = drawn("memorization", seed=seed)
        assert scored[:, 1::2].all()
        assert not scored[:, 0::2].any()
        for row in tokens:
            for key, value in zip(row[0::2], row[1::2], strict=True):
                assert table.setdefault(key, value) == value
    assert len(table) == 64


def test_mqar_asks_each_key_once_after_all_pairs():
    tokens, scored = drawn("mqar(pairs=6)")
    for row, marks in zip(tokens, scored, strict=True):
        pairs = {row[i]: row[i + 1] for i in range(0, 12, 2)}
        assert len(pairs) == 6
        asked = [row[place - 1] for place in np.flatnonzero(marks)]
        assert sorted(asked) == sorted(pairs)
        assert all(place >= 12 and pairs[row[place - 1]] == row[place] for place in np.flatnonzero(marks))


def test_induction_cannot_be_solved_by_place():
    tokens, scored = drawn("induction(longest=32)", sequences=200)
    first = scored.argmax(1)
    assert (first.min(), first.max()) == (9, 33)
    for distance in range(1, 40):
        hits = tokens[:, distance:] == tokens[:, :-distance]
        assert hits[scored[:, distance:]].mean() < 0.2


@pytest.mark.parametrize(("name", "filling"), [("passkey", None), ("needle", np.arange(5 * 300).reshape(5, 300) % 128)])
def test_a_hidden_key_stands_once_before_it_is_asked_for(name, filling):
    tokens, scored = drawn(name, filling=filling) if filling is not None else drawn(name)
    depths = set()
    for row, marks in zip(tokens, scored, strict=True):
        places = np.flatnonzero(row == MARK)
        assert len(places) == 2
        assert list(row[places[0] + 1 : places[0] + 6]) == list(row[places[1] + 1 :])
        assert list(np.flatnonzero(marks)) == list(range(LENGTH - 5, LENGTH))
        depths.add(int(places[0]))
        if filling is not None:
            assert list(row[: places[0]]) in [list(line[: places[0]]) for line in filling]
    assert len(depths) > 10


@pytest.mark.parametrize(("name", "shortest"), [("repeat", 32), ("repeat(shortest=5)", 5)])
def test_repeated_text_is_text_once_and_then_that_which_stood_there_before(name, shortest):
    filling = np.arange(300) + 1000 * np.arange(90)[:, None]
    tokens, scored = drawn(name, 90, filling=filling)
    periods = (~scored).sum(1)
    for row, line, period in zip(tokens, filling, periods, strict=True):
        first = list(line[:period])
        assert list(row) == (first * LENGTH)[:LENGTH]
    assert periods.min() in range(shortest, shortest + 8)
    assert periods.max() in range(LENGTH // 2 - 8, LENGTH // 2 + 1)
    assert len(set(periods)) > 10, "no place tells by itself what comes"
    assert not np.array_equal(tokens, drawn(name, 90, filling=filling, seed=1)[0])
    with pytest.raises(ValueError, match=f"needs at least {2 * shortest} tokens for a piece of {shortest} twice"):
        drawn(name, tokens=2 * shortest - 1, filling=filling)
    with pytest.raises(ValueError, match="repeat: needs at least 1 token a piece, found 0"):
        drawn("repeat(shortest=0)", filling=filling)
    with pytest.raises(ValueError, match=r"repeat: sequences of 301 tokens need as much text each, found \(90, 300\)"):
        drawn(name, tokens=301, filling=filling)


def test_names_with_sizes_and_wrong_ones():
    assert task_named("passkey(times=2)").tokens(128) == 256
    assert probe_named("beyond").tokens(128) == 256
    for name, said in (
        ("inductoin", "unknown task 'inductoin'; did you mean induction"),
        ("mqar(pears=3)", "its sizes are pairs, times"),
        ("passkey(times=9)", "times must lie above 0 and up to 4, found 9"),
    ):
        with pytest.raises(ValueError, match=said):
            task_named(name)
    with pytest.raises(ValueError, match="times must lie above 1"):
        probe_named("beyond(times=1)")
    for name in ("beyond", "ar_hits(ngram=3)"):
        with pytest.raises(ValueError, match=r"budget: tasks: unknown task '.*'; it is a probe.* name it under probes"):
            Budget(tasks=(name,))
    with pytest.raises(ValueError, match="each once"):
        Budget(tasks=("mqar",), probes=("mqar",))
    with pytest.raises(ValueError, match="needs at least 64 tokens for 16 pairs"):
        drawn("mqar(pairs=16)", tokens=32)
