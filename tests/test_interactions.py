"""Interactions and position maps on synthetic truth: planted ones are covered, absent ones are not claimed."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
from scipy import stats
from synthetic import built, grid, study, trial

from hybrid_nas import positions
from hybrid_nas.design import Design, Ratio
from hybrid_nas.effects import Effects
from hybrid_nas.interactions import interactions
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.positions import PARTS, part_of, position_maps
from hybrid_nas.student import f_p, f_quantile

RATIO = {"1:1": -0.04, "1:3": -0.02, "1:5": 0.0}
PLACEMENT = {"front": 0.02, "middle": 0.0, "end": 0.0, "spread": -0.02}
STUDIES = 200


def additive(design):
    return 2 + RATIO[str(design.ratio)] + PLACEMENT[design.placement]


def crossed(design):
    """A small state is bad where attention stands in front, and only there."""
    return additive(design) + 0.06 * (design.placement == "front" and design.d_state == 16)


def effects_of(trials):
    values = trainings(trials, "loss")
    return Effects(trials, values, Noise.of("loss", values))


def studies(truth, rng, n=STUDIES, size=30):
    full = grid(ratios=("1:1", "1:3", "1:5"))
    for _ in range(n):
        designs = [full[i] for i in rng.choice(len(full), size, replace=False)]
        yield study(designs, truth, rng, own=0.01, common=0.02, misfit=0.005)


def test_f_is_scipys():
    for top, bottom in ((1, 3), (4, 17.5), (12, 200)):
        for value in (0.3, 1.0, 4.0):
            assert f_p(value, top, bottom) == pytest.approx(stats.f.sf(value, top, bottom), rel=1e-8)
        assert f_quantile(top, bottom) == pytest.approx(stats.f.ppf(0.95, top, bottom), rel=1e-8)
    assert f_p(0, 2, 3) == 1


def test_the_test_of_additivity_is_the_textbooks():
    """One seed and no replicate: F of two nested least-squares fits, written another way."""
    rng = np.random.default_rng(1)
    designs = grid(ratios=("1:1", "1:3", "1:5"))
    trials = [trial(i, d, crossed(d) + rng.normal(0, 0.005)) for i, d in enumerate(designs)]
    y = np.array([t.values["loss"] for t in trials])

    def dummies(*keys):
        columns = sorted({tuple(str(getattr(d, k)) for k in keys) for d in designs})
        return np.array([[float(tuple(str(getattr(d, k)) for k in keys) == c) for c in columns] for d in designs])

    def residual(x):
        return float(((y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) ** 2).sum()), np.linalg.matrix_rank(x)

    main, rank0 = residual(np.hstack([dummies("ratio"), dummies("placement"), dummies("d_state")]))
    both, rank1 = residual(np.hstack([dummies("ratio"), dummies("placement", "d_state")]))
    f = ((main - both) / (rank1 - rank0)) / (both / (len(y) - rank1))
    p = stats.f.sf(f, rank1 - rank0, len(y) - rank1)
    found = interactions(effects_of(trials), "loss")
    assert len(found) == 3
    own = next(i for i in found if i.choices == ("d_state", "placement"))
    assert own is found[0]
    assert own.p_holm == pytest.approx(3 * p)
    assert own.decided
    assert "front" in own.second
    assert own.statement.startswith("What d_state does to loss depends on placement: 16 against")
    cell = next(c for c in own.cells if (c.first, c.second) == ("16", "front"))
    assert cell.n == 3
    assert cell.low < cell.mean < cell.high


@pytest.mark.slow
def test_planted_interactions_are_covered_and_absent_ones_are_not_claimed():
    rng = np.random.default_rng(7)
    covered = claimed = found = false = 0
    for trials in studies(crossed, rng):
        rows = interactions(effects_of(trials), "loss")
        own = next(i for i in rows if i.choices == ("d_state", "placement"))
        (a, b), (c, d) = own.first, own.second
        at = {
            (state, place): crossed(Design(ratio=Ratio(1, 3), placement=place, d_state=int(state)))
            for state in (a, b)
            for place in (c, d)
        }
        covered += own.low <= at[a, c] - at[b, c] - at[a, d] + at[b, d] <= own.high
        found += own.decided
        claimed += any(i.decided for i in rows if i is not own)
    for trials in studies(additive, rng):
        false += any(i.decided for i in interactions(effects_of(trials), "loss"))
    slack = 3 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert covered / STUDIES > 0.95 - slack
    assert claimed / STUDIES < 0.05 + slack
    assert false / STUDIES < 0.05 + slack
    assert found / STUDIES > 0.5


def test_designs_without_both_choices_make_no_test():
    designs = [d for d in grid() if d.ratio == Ratio(0, 1)]
    assert interactions(effects_of([trial(i, d, 2.0 + i) for i, d in enumerate(designs)]), "loss") == ()


def test_parts_of_a_stack():
    assert doctest.testmod(positions).failed == 0
    for depth in (3, 5, 8, 24):
        parts = [part_of(i, depth) for i in range(depth)]
        assert parts == sorted(parts, key=PARTS.index)
        assert parts[0] == PARTS[0]
        assert parts[-1] == PARTS[-1]


GAIN = {"first layer": 0.04, "first quarter": 0.01, "second quarter": -0.02, "third quarter": -0.02}


def by_depth(design):
    layout = built(design)[0].layout
    layers = [part_of(i, len(layout)) for i, letter in enumerate(layout) if letter == "A"]
    return 2 - 0.01 * len(layers) + sum(GAIN.get(part, 0.0) for part in layers) / len(layers)


def test_position_maps_cover_what_was_planted():
    """One attention layer at each depth, and ratios placed in several ways; parts that no design uses stay open."""
    rng = np.random.default_rng(11)
    designs = [Design(positions=(p,), d_state=s) for p in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) for s in (16, 64)]
    designs += grid(ratios=("1:1", "1:3"), d_states=(16, 64))
    hits = total = 0
    for _ in range(STUDIES):
        trials = study(designs, by_depth, rng, own=0.005, common=0.01, misfit=0.003)
        noise = {"loss": Noise.of("loss", trainings(trials, "loss"))}
        (found,) = position_maps(trials, noise, "loss")
        used = [worth for worth in found.parts if worth.n]
        mean = {w.part: np.mean([GAIN.get(o.part, 0.0) for o in used if o is not w]) for w in used}
        for worth in used:
            total += 1
            hits += worth.low <= GAIN.get(worth.part, 0.0) - mean[worth.part] <= worth.high
    assert found.kind == "attention"
    assert abs(hits / total - 0.95) < 3 * math.sqrt(0.95 * 0.05 / STUDIES)
    first = found.parts[0]
    assert first.effect > 0.03
    assert first.low > 0


def test_no_map_where_nothing_is_mixed():
    designs = [d for d in grid() if not d.placement]
    trials = [trial(i, d, 2.0 + 0.1 * i) for i, d in enumerate(designs)]
    assert position_maps(trials, {"loss": Noise.of("loss", trainings(trials, "loss"))}, "loss") == ()
