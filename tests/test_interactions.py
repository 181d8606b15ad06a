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


WORTH = {"first layer": 0.04, "first quarter": -0.01, "second quarter": -0.03, "third quarter": -0.02}


def by_depth(design):
    """What each attention layer is worth in its part of the depth, and further ones a little less."""
    layout = built(design)[0].layout
    layers = [part_of(i, len(layout)) for i, letter in enumerate(layout) if letter == "A"]
    return 2 + sum(WORTH.get(part, 0.005) for part in layers) + 0.004 * len(layers) ** 2


def mapped(trials, quantity="loss"):
    return position_maps(trials, {quantity: Noise.of(quantity, trainings(trials, quantity))}, quantity)


def test_position_maps_cover_what_one_layer_was_planted_to_be_worth():
    """One attention layer at each depth, and ratios placed in several ways: one more, where there are as many as on
    average, is its own worth and the slope of the curve there."""
    rng = np.random.default_rng(11)
    designs = [Design(positions=(p,), d_state=s) for p in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) for s in (16, 64)]
    designs += grid(ratios=("1:1", "1:3", "1:5"), d_states=(16, 64))
    proxies = {built(d)[0].id: built(d)[0].layout.count("A") for d in designs}
    slope = 2 * 0.004 * np.mean(list(proxies.values()))
    hits = total = 0
    for _ in range(STUDIES):
        (found,) = mapped(study(designs, by_depth, rng, own=0.005, common=0.01, misfit=0.003))
        for worth in found.parts:
            if worth.effect is not None:
                total += 1
                hits += worth.low <= WORTH.get(worth.part, 0.005) + slope <= worth.high
    assert total > 5 * STUDIES
    assert (found.kind, found.against) == ("attention", "a recurrent layer there")
    assert abs(hits / total - 0.95) < 3 * math.sqrt(0.95 * 0.05 / STUDIES)


def test_one_layer_at_each_depth_is_set_against_pure_mamba_or_else_against_other_depths():
    """Every figure by hand: means of single-layer stacks less that of stacks without, or of the other depths."""
    rng = np.random.default_rng(5)
    designs = [Design(positions=(p,), d_state=s) for p in (0.0, 0.4, 0.6) for s in (16, 32, 64)]
    mamba = [Design(ratio=Ratio(0, 1), d_state=s) for s in (16, 32, 64)]
    where = {0.0: "first layer", 0.4: "second quarter", 0.6: "third quarter"}
    trials = [trial(i, d, 2 + rng.normal(0, 0.01)) for i, d in enumerate([*designs, *mamba])]
    mean = {p: np.mean([t.values["loss"] for t in trials if t.design.positions == (p,)]) for p in where}
    none = np.mean([t.values["loss"] for t in trials if t.design.positions is None])
    (against,) = mapped(trials)
    (within,) = mapped(trials[: len(designs)])
    assert against.against == "a recurrent layer there"
    assert within.against == "one attention layer in the other parts"
    for p, part in where.items():
        (one,) = [worth for worth in against.parts if worth.part == part]
        assert one.effect == pytest.approx(mean[p] - none)
        (one,) = [worth for worth in within.parts if worth.part == part]
        assert one.effect == pytest.approx(mean[p] - np.mean([mean[q] for q in where if q != p]))


def test_a_layer_is_never_worth_more_than_a_whole_accuracy():
    designs = [Design(positions=(p,), d_state=s) for p in (0.0, 0.4, 0.6) for s in (16, 32, 64)]
    designs += [Design(ratio=Ratio(0, 1), d_state=s) for s in (16, 32, 64)]
    trials = [
        trial(i, d, 2.0, recall=0.0 if d.positions is None else float(1 - 0.3 * (i == 3)))
        for i, d in enumerate(designs)
    ]
    (found,) = mapped(trials, "recall")
    assert found.parts[0].effect == pytest.approx(1.0, abs=0.02)
    assert all(-1 <= w.low <= w.effect <= w.high <= 1 for w in found.parts if w.effect is not None)
    assert found.parts[0].high == 1


def test_no_map_where_nothing_is_mixed():
    designs = [d for d in grid() if not d.placement]
    trials = [trial(i, d, 2.0 + 0.1 * i) for i, d in enumerate(designs)]
    assert position_maps(trials, {"loss": Noise.of("loss", trainings(trials, "loss"))}, "loss") == ()
