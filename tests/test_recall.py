"""Recall sequences against brute force: what is scored can be told from what came before, and nothing else can."""

import numpy as np
import pytest

from hybrid_nas.recall import draw


@pytest.mark.parametrize(("symbols", "tokens"), [(1, 9), (4, 16), (5, 33), (32, 256)])
def test_copy_repeats_one_random_string(symbols: int, tokens: int) -> None:
    rows, scored = draw("copy", symbols, 20, tokens, np.random.default_rng(0))
    for row, marks in zip(rows.tolist(), scored.tolist(), strict=True):
        for t in range(tokens):
            assert marks[t] == (t >= symbols)
            if marks[t]:
                assert row[t] == row[t - symbols]
    assert 128 <= rows.min() <= rows.max() < 192
    assert len(np.unique(rows[:, :symbols])) > min(symbols * 20, 64) // 2


@pytest.mark.parametrize(("symbols", "tokens"), [(1, 9), (3, 18), (8, 40), (64, 257)])
def test_associative_scores_the_values_of_known_keys(symbols: int, tokens: int) -> None:
    rows, scored = draw("associative", symbols, 20, tokens, np.random.default_rng(0))
    for row, marks in zip(rows.tolist(), scored.tolist(), strict=True):
        known: dict[int, int] = {}
        for t, token in enumerate(row):
            if t % 2 == 0:
                assert 128 <= token < 192
                assert not marks[t]
            else:
                assert 192 <= token < 256
                assert marks[t] == (row[t - 1] in known)
                assert known.setdefault(row[t - 1], token) == token
        assert len(known) == symbols


def test_one_generator_one_draw() -> None:
    first, second, other = (draw("associative", 8, 4, 64, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_keys_and_orders_are_uniform() -> None:
    rows, _ = draw("associative", 8, 4000, 32, np.random.default_rng(0))
    counts = np.bincount(rows[:, 0] - 128, minlength=64)
    assert abs(counts - 4000 / 64).max() < 5 * np.sqrt(4000 / 64)
    first_again = (rows[:, 16] == rows[:, 0]).mean()
    assert abs(first_again - 1 / 8) < 5 * np.sqrt(1 / 8 * 7 / 8 / 4000)


def test_no_room_is_an_error() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match="copy of 32 symbols needs sequences of at least 33 tokens, found 32"):
        draw("copy", 32, 1, 32, generator)
    with pytest.raises(ValueError, match="at least 18 tokens, found 17"):
        draw("associative", 8, 1, 17, generator)
    with pytest.raises(ValueError, match="64 keys, so at most as many pairs; found 65"):
        draw("associative", 65, 1, 500, generator)
