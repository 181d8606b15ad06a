"""The front against brute force, its noise against numpy, its probabilities against long-hand simulation."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import bare_trial, grid, objectives, study

from hybrid_nas.budget import Budget
from hybrid_nas.dominance import hypervolume, knee, non_dominated, plausible
from hybrid_nas.front import Front
from hybrid_nas.noise import Noise, trainings

SMALL = st.integers(0, 4)  # few values, so that ties and duplicates are common


def beaten(points: np.ndarray) -> list[bool]:
    """Dominated or not, by definition."""
    rows = points.tolist()
    return [any(all(x <= y for x, y in zip(a, b, strict=True)) and a != b for a in rows) for b in rows]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4).flatmap(lambda k: st.lists(st.tuples(*[SMALL] * k), min_size=1, max_size=30)))
def test_non_dominated_is_the_definition(rows):
    points = np.array(rows, dtype=float)
    assert (~non_dominated(points)).tolist() == beaten(points)


@pytest.mark.parametrize("objectives_count", [2, 3, 4, 5])
@pytest.mark.parametrize("values", [2, 12, 1000])
def test_non_dominated_of_many_is_the_definition(objectives_count, values):
    """Few values: ties and duplicates; many, and the last column against the others: nearly all on the front."""
    points = np.random.default_rng(objectives_count).integers(0, values, (600, objectives_count)).astype(float)
    if values == 1000:
        points[:, -1] -= points[:, :-1].sum(1)
    assert (~non_dominated(points)).tolist() == beaten(points)


@pytest.mark.parametrize("objectives_count", [2, 3, 4])
def test_ten_times_the_points_take_no_hundred_times_the_work(objectives_count):
    """Points that are all on the front, the most work that there is."""
    rng, took = np.random.default_rng(0), []
    for n in (4_000, 40_000):
        points = np.abs(rng.normal(size=(n, objectives_count)))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        begin = time.process_time()
        assert non_dominated(points).all()
        took.append(time.process_time() - begin)
    assert took[1] < 40 * took[0] + 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4).flatmap(lambda k: st.lists(st.tuples(*[SMALL] * k), min_size=1, max_size=8)))
def test_hypervolume_counts_unit_cells(rows):
    """On whole numbers the volume is the number of unit cells that some point dominates."""
    points = np.array(rows, dtype=float)
    k = points.shape[1]
    cells = sum(
        any(all(p <= c for p, c in zip(point, cell, strict=True)) for point in rows)
        for cell in itertools.product(range(4), repeat=k)
    )
    assert hypervolume(points, np.full(k, 4.0)) == pytest.approx(cells)


@pytest.mark.parametrize("margin", [[0.1, 0.0], [0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
def test_plausible_keeps_whatever_any_noise_could_save(margin):
    rng = np.random.default_rng(1)
    points = rng.random((60, 2)) if margin[0] == 0.1 else rng.integers(0, 6, (60, len(margin))).astype(float)
    keep = plausible(points - margin, points + margin)
    for i in range(len(points)):
        moved = points + margin
        moved[i] = points[i] - margin
        assert keep[i] == non_dominated(moved)[i]


def test_knee_is_farthest_from_the_line_between_the_ends():
    front = np.array([[0.0, 10.0], [1.0, 4.0], [2.0, 3.0], [10.0, 0.0]])
    a, b = front[0] / 10, front[-1] / 10
    normal = np.array([b[1] - a[1], a[0] - b[0]])
    by_hand = (front / 10 - a) @ normal / np.linalg.norm(normal)
    row, distance = knee(front)
    assert (row, distance) == (int(by_hand.argmax()), pytest.approx(by_hand.max()))
    assert knee(np.array([[0.0, 1.0], [0.9, 0.9], [1.0, 0.0]])) == (0, 0.0)
    assert knee(np.array([[3.0, 1.0]])) == (0, 0.0)


rows_of_trials = st.lists(
    st.tuples(SMALL, SMALL, st.integers(0, 9), st.sampled_from(["complete", "complete", "stopped", "failed"])),
    min_size=1,
    max_size=25,
)


@settings(max_examples=100, deadline=None)
@given(rows_of_trials, st.randoms(use_true_random=False))
def test_front_of_trials_is_brute_force_whatever_the_order(rows, random):
    """Designs drawn from ten, with repeats at further seeds; each design's cache is its own."""
    seeds: dict[int, int] = {}
    trials = []
    for number, (loss, _, index, state) in enumerate(rows):
        seed = seeds[index] = seeds.get(index, -1) + 1
        trials.append(bare_trial(number, loss, 1 + (index * 7) % 5, proxy=index, target=index, seed=seed, state=state))
    front = Front.of(trials, objectives(), draws=20)
    points = {}
    for index in seeds:
        losses = [t.values["loss"] for t in trials if t.state == "complete" and t.proxy.width == index + 1]
        if losses:
            points[index] = (sum(losses) / len(losses), 1 + (index * 7) % 5)
    expected = {
        i for i, p in points.items() if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points.values())
    }
    found = {next(t.proxy.width - 1 for t in trials if t.number == c.number) for c in front.members}
    assert found == expected
    assert len(front.candidates) == len(points)
    shuffled = trials[:]
    random.shuffle(shuffled)
    assert Front.of(shuffled, objectives(), draws=20).to_dict() == front.to_dict()


def test_equal_designs_are_both_members():
    front = Front.of([bare_trial(0, 1.0, 10), bare_trial(1, 1.0, 10), bare_trial(2, 1.0, 11)], objectives())
    assert [c.number for c in front.members] == [0, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_by_number(value):
    with pytest.raises(ValueError, match=r"trial 7: loss.*finite"):
        Front.of([bare_trial(0, 1.0, 10), bare_trial(7, value, 11)], objectives())


def test_a_missing_objective_and_mixed_budgets_are_refused():
    with pytest.raises(ValueError, match="trial 0: complete, but without a value of the objective recall"):
        Front.of([bare_trial(0, 1.0, 10)], objectives("recall", "cache_bytes"))
    short = bare_trial(1, 1.0, 10).with_changes(budget=Budget(tokens=5))
    with pytest.raises(ValueError, match=r"different budgets \(tokens \d+ and 5\)"):
        Front.of([bare_trial(0, 1.0, 10), short], objectives())
    slower = bare_trial(1, 1.0, 10).with_changes(budget=Budget(learning_rate=1e-4))
    with pytest.raises(ValueError, match=r"learning_rate None and 0\.0001"):
        Front.of([bare_trial(0, 1.0, 10), slower], objectives())


def test_without_complete_trials_there_is_no_front():
    front = Front.of([bare_trial(0, 1.0, 10, state="failed", failure="out of memory")], objectives())
    assert (front.members, front.knee, front.hypervolume) == ((), None, 0.0)
    assert front.to_dict()["counts"]["failed"] == 1
    assert "no front" in front.statement


def test_noise_is_pooled_over_proxies_and_the_seed_effect_is_told_apart():
    rng = np.random.default_rng(3)
    losses = rng.normal(0, 0.02, (6, 3)) + rng.normal(0, 0.1, (1, 3)) + np.arange(6)[:, None]
    trials = [bare_trial(10 * d + s, losses[d, s], 5, proxy=d, target=d, seed=s) for d in range(6) for s in range(3)]
    trials += [bare_trial(100 + d, losses[d, 0], 4, proxy=d, target=50 + d) for d in range(3)]  # share trainings
    noise = Noise.of("loss", trainings(trials, "loss"))
    assert noise.df == 12
    assert noise.sd == pytest.approx(math.sqrt(losses.var(axis=1, ddof=1).mean()))
    twice_centred = losses - losses.mean(1, keepdims=True) - losses.mean(0) + losses.mean()
    assert noise.own_df == 10
    assert noise.own_sd == pytest.approx(math.sqrt((twice_centred**2).sum() / 10))
    assert noise.seed_effects[2] - noise.seed_effects[0] == pytest.approx(losses.mean(0)[2] - losses.mean(0)[0])
    assert noise.floor == pytest.approx(2.178813 * math.sqrt(2) * noise.sd, rel=1e-6)  # t(12) from a printed table
    candidate = Front.of(trials, objectives()).candidates[0]
    estimate = candidate.estimates["loss"]
    assert estimate.n == 3
    assert estimate.mean == pytest.approx(losses[0].mean())
    assert estimate.high - estimate.low == pytest.approx(2 * 2.178813 * noise.sd / math.sqrt(3), rel=1e-6)


def test_without_replicates_there_is_no_interval_and_the_front_says_so():
    front = Front.of([bare_trial(i, 1.0 + i, 10 - i) for i in range(3)], objectives())
    assert all(c.estimates["loss"].low is None and c.probability is None for c in front.candidates)
    assert "noise is unknown" in front.statement


def test_intervals_hold_the_truth_19_times_in_20():
    """Designs with a single seed included: the pooled standard deviation is theirs too."""
    rng, hits, total = np.random.default_rng(5), 0, 0
    for _ in range(300):
        truth = rng.random(8)
        trials = [bare_trial(i, truth[i] + rng.normal(0, 0.05), i + 1) for i in range(8)]
        trials += [
            bare_trial(100 + 10 * i + s, truth[i] + rng.normal(0, 0.05), i + 1, proxy=i, target=i, seed=s)
            for i in range(4)
            for s in (1, 2)
        ]
        for candidate in Front.of(trials, objectives(), draws=1).candidates:
            estimate = candidate.estimates["loss"]
            hits += estimate.low <= truth[candidate.number] <= estimate.high
            total += 1
    assert abs(hits / total - 0.95) < 0.02


def test_probability_of_two_designs_is_the_closed_form():
    """B costs more and is better by d: it is a member with the probability that its mean is really lower."""
    from scipy.stats import t as student_t

    rng = np.random.default_rng(8)
    trials = [bare_trial(0, 1.0, 10), bare_trial(1, 0.98, 20)]
    for i in range(2, 12):  # far off, cheap to beat, there to measure the noise
        for s in range(2):
            trials.append(bare_trial(2 * i + s, 5 + rng.normal(0, 0.02), 30 + i, proxy=i, target=i, seed=s + 1))
    front = Front.of(trials, objectives(), draws=20_000)
    common, own, df = front.noise["loss"].shared
    if common == 0:
        assert own == front.noise["loss"].sd
    expected = student_t.cdf(0.02 / (own * math.sqrt(2)), df)
    assert front.candidate(trials[1].key).probability == pytest.approx(expected, abs=0.02)
    assert front.candidate(trials[0].key).probability == 1.0
    assert front.candidate(trials[1].key).sure is False
    assert all(c.probability == 0 for c in front.candidates[2:])


def test_designs_that_share_a_training_move_together():
    """Same proxy, dearer target: never on the front however large the noise, and said to coincide."""
    trials = [bare_trial(0, 1.0, 10, proxy=0), bare_trial(1, 1.0, 11, proxy=0, shared_with=0)]
    trials += [bare_trial(2, 3.0, 10, proxy=0, target=0, seed=1, replicate_of=0)]
    front = Front.of(trials, objectives())
    cheap, dear = front.candidates
    assert cheap.coincides_with == (1,)
    assert (cheap.estimates["loss"].mean, dear.estimates["loss"].mean) == (2.0, 2.0)
    assert (cheap.probability, dear.probability) == (1.0, 0.0)
    assert front.counts["trainings"] == 2


def test_a_front_outside_the_noise_is_sure_and_one_inside_is_not():
    rng = np.random.default_rng(0)
    apart = grid(placements=("spread",), d_states=(64,))
    steep = Front.of(
        study(apart, lambda d: 2 - d.ratio.attention / (d.ratio.attention + d.ratio.mamba), rng), objectives()
    )
    flat = Front.of(study(grid(), lambda d: 2.0, rng), objectives())
    assert len(steep.members) == 6
    assert {c.design["ratio"]: c.sure for c in steep.members}["1:0"]
    assert any(c.sure is False for c in flat.members)
    assert flat.close


def test_hypervolume_and_ends_by_hand():
    front = Front.of([bare_trial(0, 1.0, 30), bare_trial(1, 2.0, 10), bare_trial(2, 3.0, 50)], objectives())
    # reference (3.2, 54), ideal (1, 10): 1.2 x 44 for the second, then 1.0 x 24 more for the first
    assert front.hypervolume == pytest.approx((1.2 * 44 + 1.0 * 24) / (2.2 * 44))
    assert front.candidate(front.ends["loss"]).number == 0
    assert front.candidate(front.ends["cache_bytes"]).number == 1
    fixed = Front.of([bare_trial(1, 2.0, 10)], objectives(), reference={"loss": 4.0, "cache_bytes": 20.0})
    assert fixed.hypervolume == 1.0


def test_a_cost_of_more_than_a_decade_is_measured_by_its_logarithm():
    """Caches 1 to 1000: the reference is 1099.9, so a design at 10 stands at a third of the box, not at a hundredth."""
    front = Front.of([bare_trial(i, 3.0 - i, 10**i) for i in range(4)], objectives())
    widths = [math.log(10)] * 3 + [math.log(1.0999)]
    heights = [(3.3 - (3.0 - i)) / 3.3 for i in range(4)]
    expected = sum(w * h for w, h in zip(widths, heights, strict=True)) / math.log(1099.9)
    assert front.hypervolume == pytest.approx(expected)
    assert front.to_dict()["hypervolume"]["logarithmic"] == ["cache_bytes"]


def test_maximized_objectives_are_read_the_right_way():
    trials = [bare_trial(i, 1.0, 10 + i, values={"recall": r}) for i, r in enumerate([0.2, 0.9, 0.5])]
    front = Front.of(trials, objectives("recall", "cache_bytes"))
    assert [c.number for c in front.members] == [1, 0]
    assert front.ideal["recall"] == 0.9
    assert front.reference["recall"] == pytest.approx(0.2 - 0.07)


def test_ten_thousand_trials_take_seconds():
    rng = np.random.default_rng(0)
    trials = [
        bare_trial(i, float(rng.random()), int(rng.integers(1, 10**9)), proxy=i % 5000, target=i % 5000, seed=i // 5000)
        for i in range(10_000)
    ]
    started = time.process_time()
    front = Front.of(trials, objectives())
    assert time.process_time() - started < 10
    assert len(front.candidates) == 5000


def seeds_of_recall(rows):
    """Trials of designs with these accuracies at seeds 0, 1, ...; the higher the accuracy, the larger the cache."""
    return [
        bare_trial(10 * i + s, 1.0, 10 + i, proxy=i, target=i, seed=s, values={"recall": value})
        for i, row in enumerate(rows)
        for s, value in enumerate(row)
    ]


RECALLS = [(0.02, 0.03), (0.015, 0.02), (0.03, 0.02), (0.2, 0.9), (0.95, 0.3), (0.1, 0.6), (0.97, 0.99), (0.96, 0.92)]
RECALLS += [(0.95, 0.99)]


def test_an_accuracy_has_the_noise_of_its_level_and_its_interval_stays_inside_0_and_1():
    """By scipy's log odds and numpy's variance; t(3) = 3.182446 from a printed table."""
    from scipy.special import expit, logit

    front = Front.of(seeds_of_recall(RECALLS), objectives("recall", "cache_bytes"), draws=50)
    for rows in (slice(0, 3), slice(3, 6), slice(6, 9)):
        sd = math.sqrt(logit(np.array(RECALLS[rows])).var(axis=1, ddof=1).mean())
        for candidate in front.candidates[rows]:
            estimate = candidate.estimates["recall"]
            half = 3.182446 * sd / math.sqrt(2)
            expected = expit(logit(estimate.mean) - half), expit(logit(estimate.mean) + half)
            assert (estimate.low, estimate.high) == pytest.approx(expected, rel=1e-5)
    widths = [c.estimates["recall"].high - c.estimates["recall"].low for c in front.candidates]
    assert max(widths[:3]) < 0.04 < 0.6 < min(widths[3:6])
    assert "below 0.1" in front.statement
    assert front.noise["recall"].floor is None  # no one difference holds at every level
    assert front.noise["recall"].apart(0.02, 0.98)
    assert not front.noise["recall"].apart(0.3, 0.9)


def test_one_training_at_a_level_has_the_deviation_of_every_design_seen_there():
    """A single 0.95 may be the lucky seed of the design that has 0.3 at another."""
    from scipy.special import logit

    front = Front.of(
        [*seeds_of_recall(RECALLS), bare_trial(999, 1.0, 9, proxy=99, target=99, values={"recall": 0.95})],
        objectives("recall", "cache_bytes"),
        draws=0,
    )
    high = [(0.95, 0.3), (0.97, 0.99), (0.96, 0.92), (0.95, 0.99)]  # 0.9 itself is no more than the middle
    variances, weights = logit(np.array(high)).var(axis=1, ddof=1), np.array([0.5, 1, 1, 1])
    sd, df = front.noise["recall"].levels.spread(0.95, 1)
    assert (sd, df) == (pytest.approx(math.sqrt((weights * variances).sum() / 3.5)), 3)


def test_probability_of_two_accuracies_is_that_of_their_log_odds():
    """Simulated the long way: both means move by Student's t of their level's deviation."""
    from scipy.special import logit

    front = Front.of(seeds_of_recall(RECALLS), objectives("recall", "cache_bytes"), draws=20_000)
    rng = np.random.default_rng(11)
    means, cache = logit(np.array(RECALLS).mean(1)), np.arange(9)
    sds = [math.sqrt(logit(np.array(RECALLS[i : i + 3])).var(axis=1, ddof=1).mean()) for i in (0, 3, 6)]
    drawn = means + rng.standard_t(3, (20_000, 9)) * np.repeat(sds, 3) / math.sqrt(2)
    on_front = [(drawn[:, :i] < drawn[:, [i]]).all(1).mean() for i in cache]  # the cheaper ones are all worse
    assert [c.probability for c in front.candidates] == pytest.approx(on_front, abs=0.02)


def test_an_accuracy_that_no_design_has_learned_makes_nobody_sure():
    """Recalls about chance, each higher at more cost and a worse loss: members, and not for what they do."""
    from hybrid_nas.objective import QUANTITIES
    from hybrid_nas.recall import ALPHABET

    assert QUANTITIES["recall"].chance == 1 / ALPHABET
    rows = [(0.012, 0.0121), (0.016, 0.0161), (0.023, 0.0231), (0.03, 0.0301)]
    trials = [
        bare_trial(10 * i + s, 1.0 + i + 0.01 * s, 10 + i, proxy=i, target=i, seed=s)
        for i in range(4)
        for s in range(2)
    ]
    trials = [t.with_changes(values={**t.values, "recall": rows[t.number // 10][t.number % 10]}) for t in trials]
    front = Front.of(trials, objectives("loss", "recall", "cache_bytes"))
    assert [c.number for c in front.members] == [0, 10, 20, 30]
    assert [c.sure for c in front.members] == [True, False, False, False]
    assert set(front.ends) == {"loss", "cache_bytes"}
    assert "None of these designs has learned recall: the best is 0.030" in front.statement
    assert "Chance is 0.016" in front.statement
    learned = [t.with_changes(values={**t.values, "recall": 0.9}) if t.number >= 30 else t for t in trials]
    front = Front.of(learned, objectives("loss", "recall", "cache_bytes"))
    assert (front.idle, set(front.ends)) == ((), {"loss", "recall", "cache_bytes"})
    assert "learned" not in front.statement
