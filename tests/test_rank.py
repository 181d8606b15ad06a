"""Rank correlations against SciPy's, and how often their intervals hold the truth."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy import stats

from hybrid_nas import rank
from hybrid_nas.rank import kendall, spearman


@pytest.mark.parametrize("levels", [3, 8, 1000])
def test_values_are_scipys_with_and_without_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for n in (2, 7, 25):
        x = rng.integers(0, levels, n)
        y = x + rng.integers(0, levels, n)
        x[0], x[1] = 0, levels  # not constant
        y[0], y[1] = 0, levels
        assert kendall(x, y).value == pytest.approx(stats.kendalltau(x, y).statistic)
        assert spearman(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic)


def test_documented_examples() -> None:
    assert doctest.testmod(rank).failed == 0


@pytest.mark.parametrize(("n", "rho"), [(10, 0.5), (10, 0.97), (20, 0.9), (40, 0.0)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(n: int, rho: float) -> None:
    """Of a bivariate normal: tau = 2/pi asin(rho) [Kendall 1949], rho_s = 6/pi asin(rho/2)."""
    rng = np.random.default_rng(n)
    draws, hits = 200, {"kendall": 0, "spearman": 0}
    for i in range(draws):
        x, z = rng.standard_normal((2, n))
        y = rho * x + math.sqrt(1 - rho**2) * z
        for name, of, truth in (
            ("kendall", kendall, 2 / math.pi * math.asin(rho)),
            ("spearman", spearman, 6 / math.pi * math.asin(rho / 2)),
        ):
            found = of(x, y, draws=300, seed=i)
            hits[name] += found.low <= truth <= found.high
    assert min(hits.values()) / draws > 0.93 - 2.6 * math.sqrt(0.95 * 0.05 / draws)


def test_intervals_narrow_with_more_designs_and_know_their_ends() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (10, 40, 160):
        x = rng.standard_normal(n)
        found = kendall(x, x + rng.standard_normal(n))
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2]
    perfect = kendall(range(8), range(8))
    assert perfect.value == perfect.high == 1
    assert perfect.low == pytest.approx(2 * 0.05**0.25 - 1)  # 4 independent pairs in order: p >= 0.05 ** (1 / 4)
    assert kendall(range(20), [-i for i in range(20)]).value == -1


def test_one_seed_one_interval() -> None:
    x, y = np.random.default_rng(3).standard_normal((2, 12))
    assert kendall(x, y, seed=5) == kendall(x, y, seed=5) != kendall(x, y, seed=6)


def test_what_cannot_be_ordered() -> None:
    assert kendall([1, 1, 1], [1, 2, 3]) is None
    assert spearman([1], [1]) is None
    assert kendall([1, 2, 3], [1, 3, 2]).low is None
    with pytest.raises(ValueError, match="found 2 and 3"):
        kendall([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="finite"):
        spearman([1, math.nan], [1, 2])
