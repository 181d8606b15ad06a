"""Planted laws are found, intervals cover, and the paper's own runs: the largest size from the others."""

import numpy as np
import pytest

from hybrid_nas.extrapolation import Measured, fit, left_out

SIZES, TOKENS = (1e6, 3e6, 1e7), (1e7, 3e7, 1e8, 3e8)


def planted(rng, noise, floor=1.9, a=40.0, alpha=0.3, b=60.0, beta=0.28):
    return [
        Measured(n, d, floor + a * n**-alpha + b * d**-beta + (rng.normal(0, noise) if noise else 0.0))
        for n in SIZES
        for d in TOKENS
    ]


def test_a_planted_law_is_found_far_beyond_what_was_measured():
    law = fit(planted(np.random.default_rng(0), 0.0))
    for n, d in ((1e8, 3e9), (1e9, 6e10)):
        assert law.loss(n, d) == pytest.approx(1.9 + 40 * n**-0.3 + 60 * d**-0.28, abs=2e-3)
    assert (law.alpha, law.beta) == (pytest.approx(0.3, abs=0.01), pytest.approx(0.28, abs=0.01))


def test_intervals_cover_new_trainings():
    inside = total = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        law = fit(planted(rng, 0.004))
        for n, d in ((1e7, 3e8), (2e7, 6e8), (4e7, 1e9)):
            truth = 1.9 + 40 * n**-0.3 + 60 * d**-0.28 + rng.normal(0, 0.004)
            found = law.forecast(n, d)
            inside += found.low <= truth <= found.high
            total += 1
    assert 0.88 <= inside / total <= 1.0


def test_what_was_not_varied_has_no_term():
    one_size = [m for m in planted(np.random.default_rng(1), 0.0) if m.params == SIZES[0]]
    law = fit(one_size)
    assert law.a == 0
    assert law.loss(SIZES[0], 1e9) == pytest.approx(1.9 + 40 * SIZES[0] ** -0.3 + 60 * 1e9**-0.28, abs=5e-3)
    assert law.loss(1.0, 1e9) == law.loss(1e12, 1e9)
    with pytest.raises(ValueError, match="3 trainings at 1 size and 3 numbers of tokens"):
        fit(one_size[:3])
    with pytest.raises(ValueError, match="loss must be a number above 0, found -1"):
        Measured(1, 1, -1)


def test_leaving_the_largest_size_out():
    checks = left_out(planted(np.random.default_rng(2), 0.003))
    assert [c.measured.params for c in checks] == [SIZES[-1]] * len(TOKENS)
    assert np.mean([abs(c.forecast.loss - c.measured.loss) for c in checks]) < 0.02
    assert sum(c.inside for c in checks) >= 3


# [arXiv:2510.04800, Tables 14 and 15]: non-embedding parameters and, for each budget of FLOPs, tokens (1e9) and loss.
RUNS = {
    "attention": {
        0.10e9: [(20, 3.237), (41, 3.190), (82, 3.157)],
        0.35e9: [(6, 3.155), (13, 3.066), (25, 2.992), (63, 2.914), (126, 2.874)],
        0.97e9: [(3, 3.261), (5, 3.088), (11, 2.960), (27, 2.833), (54, 2.760)],
        2.82e9: [(10, 2.884), (19, 2.773)],
    },
    "mamba": {
        0.10e9: [(27, 3.173), (54, 3.134)],
        0.35e9: [(8, 3.050), (17, 2.983), (34, 2.933), (85, 2.884), (170, 2.855)],
        0.99e9: [(3, 3.159), (6, 3.003), (12, 2.885), (31, 2.772), (62, 2.712)],
        2.80e9: [(11, 2.790), (21, 2.691)],
    },
    "inter": {
        0.10e9: [(31, 3.192), (63, 3.159), (125, 3.136)],
        0.35e9: [(8, 3.037), (17, 2.972), (34, 2.919), (85, 2.870), (170, 2.842)],
        0.96e9: [(3, 3.128), (7, 2.977), (13, 2.869), (33, 2.769), (65, 2.714)],
        2.80e9: [(11, 2.777), (22, 2.672)],
    },
    "intra": {
        0.10e9: [(31, 3.186), (62, 3.155), (124, 3.131)],
        0.35e9: [(8, 3.037), (17, 2.969), (33, 2.917), (83, 2.867), (167, 2.838)],
        0.98e9: [(3, 3.123), (6, 2.977), (13, 2.868), (32, 2.765), (64, 2.709)],
        2.80e9: [(11, 2.782), (21, 2.676)],
    },
}


def test_the_papers_3b_models_from_its_smaller_ones():
    """Four families, 3B at the two largest budgets, from 100M to 1B: within 0.045 nats, and inside the intervals."""
    checks = []
    for sizes in RUNS.values():
        measured = [Measured(n, d * 1e9, loss) for n, runs in sizes.items() for d, loss in runs]
        checks += left_out(measured)
    assert len(checks) == 8
    assert max(abs(c.forecast.loss - c.measured.loss) for c in checks) < 0.045
    assert sum(c.inside for c in checks) >= 7
    assert max(c.forecast.high - c.forecast.low for c in checks) < 0.5


def test_a_law_needs_as_many_combinations_as_it_has_numbers():
    """Sizes and tokens that rise together, as at equal compute, do not tell the one from the other."""
    together = [Measured(n, d, 2 + n**-0.3 + 0.001 * i) for n, d in ((1e6, 1e8), (4e6, 4e8)) for i in range(4)]
    with pytest.raises(ValueError, match="2 combinations of size and tokens, and the law has 3 numbers"):
        fit(together)
    two_sizes = [m for m in planted(np.random.default_rng(0), 0.0) if m.params < SIZES[-1]]
    with pytest.raises(ValueError, match="fewer than two sizes are left; the check takes three or more"):
        left_out(two_sizes)
