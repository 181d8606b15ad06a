"""Expected improvement against hypervolumes counted another way, the model against a known truth, and the choice."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from hybrid_nas.acquisition import Known, next_design
from hybrid_nas.census import Census
from hybrid_nas.dominance import hypervolume, non_dominated
from hybrid_nas.improvement import Room, spread_out
from hybrid_nas.study import Study
from hybrid_nas.study_file import read_study
from hybrid_nas.surrogate import EVEN, NOISE, Spellings, amount, doubt, posterior
from hybrid_nas.trial import Trial

SPACE = """\
ratio: [1:0, 1:1, 1:3, 1:5, 1:12, 0:1]
placement: [front, middle, end, spread]
d_state: [16, 64, 128]
position: [rope, none]
search: {sampler: ehvi, trials: 40}
"""


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_sure_improvement_is_the_difference_of_two_hypervolumes(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    points = rng.random((12, objectives))
    front, reference, ideal = points[non_dominated(points)], np.full(objectives, 1.1), np.zeros(objectives)
    room = Room.beyond(front, ideal, reference, points=60_000)
    candidates = rng.random((6, objectives)) * 0.8
    found = room.improvement(candidates[:, 1:], candidates[:, :1], np.zeros((6, 1)))
    before = hypervolume(front, reference)
    exact = [hypervolume(np.vstack([front, c]), reference) - before for c in candidates]
    assert found == pytest.approx(np.array(exact) / 1.1**objectives, abs=2e-3)
    assert room.share == pytest.approx(1 - before / 1.1**objectives, abs=2e-3)


def test_an_unsure_improvement_is_its_mean_over_draws() -> None:
    front = np.array([[0.2, 0.3, 0.8], [0.6, 0.5, 0.2]])
    reference, ideal = np.ones(3), np.zeros(3)
    mean, sd, known = np.array([[0.4, 0.4]]), np.array([[0.2, 0.1]]), np.array([[0.5]])
    found = Room.beyond(front, ideal, reference, points=40_000).improvement(known, mean, sd)[0]
    before = hypervolume(front, reference)
    drawn = np.random.default_rng(0).normal(mean[0], sd[0], (4000, 2))
    drawn = np.maximum(drawn, 0)  # the box ends at the ideal point
    gains = [hypervolume(np.vstack([front, [*quality, 0.5]]), reference) - before for quality in drawn]
    assert found == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(len(gains)) + 2e-3)


def test_points_fill_the_cube_evenly() -> None:
    points = spread_out(4096, 3)
    assert points.mean(0) == pytest.approx([0.5] * 3, abs=0.01)
    assert ((points < 0.5).all(1)).mean() == pytest.approx(1 / 8, abs=0.01)


def test_amounts_are_numbers_and_names_are_not() -> None:
    assert [amount(a) for a in ("1:3", "1/4", 64, "spread", None)] == [0.25, 0.25, 64.0, None, None]


def test_the_model_finds_main_effects_and_knows_where_it_does_not_know() -> None:
    """The truth is additive in three choices of four options each; 24 of the 64 designs are seen, with noise."""
    rng = np.random.default_rng(0)
    designs = [{"a": a, "b": b, "c": c} for a in "pqrs" for b in "pqrs" for c in "pqrs"]
    effect = {(name, option): rng.normal() for name in "abc" for option in "pqrs"}
    truth = np.array([sum(effect[item] for item in design.items()) for design in designs])
    seen = rng.permutation(64)[:24].tolist()
    values = truth[seen] + rng.normal(0, 0.05, 24)
    mean, sd = posterior(Spellings.of(designs), seen, range(64), values, np.zeros(24))
    unseen = [i for i in range(64) if i not in seen]
    errors = np.abs(mean - truth)[unseen]
    assert np.sqrt((errors**2).mean()) < 0.25 * truth[unseen].std()
    assert (errors < 3 * sd[unseen]).mean() > 0.9
    assert sd[unseen].mean() > sd[seen].mean()
    unsure = posterior(Spellings.of(designs), seen, range(64), values, np.full(24, 100.0))[1]
    assert (unsure > sd).all()  # values that are only foretold say less


def test_doubt_is_the_variance_that_is_left_of_a_joint_normal() -> None:
    """Told by the inverse of the whole covariance, whose last entry is one over what is left, noise included."""
    designs = [{"a": a, "b": b, "c": c} for a in "pqr" for b in "st" for c in (16, 64, 128)]
    spellings, begun = Spellings.of(designs), [0, 7, 12]
    left = doubt(spellings, begun, range(18))
    parts = spellings.alike(np.arange(18), np.arange(18))
    kernel = sum(w * part for w, part in zip(EVEN, parts, strict=True)) + NOISE * np.eye(18)
    for j in range(18):
        if j not in begun:
            inverse = np.linalg.inv(kernel[np.ix_([*begun, j], [*begun, j])])
            assert left[j] == pytest.approx(1 / inverse[-1, -1] - NOISE)
    assert max(left[begun]) < min(left[[j for j in range(18) if j not in begun]])
    assert (doubt(spellings, [], range(18)) == 1).all()


def test_a_search_begins_with_designs_that_are_unlike() -> None:
    """Those after the ends of the cost axis share fewer answers with each other than such as chance takes."""

    def shared(sampler: str) -> float:
        same = []
        for seed in range(5):
            designs = [trial.design.to_dict() for trial in run(sampler, 6, seed)[0]]
            for i, one in enumerate(designs):
                same += [sum(other.get(k) == v for k, v in one.items()) / len(one) for other in designs[:i]]
        return float(np.mean(same))

    assert shared("ehvi") < 0.9 * shared("random")


def test_the_choice_is_the_one_that_the_front_gains_from() -> None:
    """Quality follows one choice: of two designs of the same cost, the one with the better answer is taken."""
    designs = [{"a": a, "b": b} for a in "xy" for b in range(8)]
    cost = np.array([[2.0**b] for _ in "xy" for b in range(8)])
    quality = np.array([[1.0 if d["a"] == "x" else 2.0] for d in designs])
    rows = [0, 2, 4, 8, 10, 12]
    known = Known(rows, quality[rows], np.zeros((6, 1)))
    left = [i for i in range(16) if i not in rows]
    assert next_design(Spellings.of(designs), cost, known, left) in (1, 3, 5, 6, 7)
    assert next_design(Spellings.of(designs), cost, Known(rows, quality[rows], np.zeros((6, 1)), [1]), left) != 1


def run(sampler: str, trials: int, seed: int) -> tuple[list[Trial], float]:
    """A search whose losses are a function of the design, without a training; and the share of the best front."""
    file = read_study(SPACE, "space.yaml", (f"search.sampler={sampler}", f"search.seed={seed}"))
    census = Census.of(file)
    every = list(census.proposals.values())

    def loss(trial: object) -> float:
        text = str(trial)
        return 2.0 - 0.2 * ("spread" in text) - 0.1 * ('"d_state":128' in text) - 0.1 * ('"rope"' in text)

    points = np.array([[loss(p.design), np.log2(p.cost.cache_bytes)] for p in every])
    reference = points.max(0) + 0.1 * (points.max(0) - points.min(0))
    best = hypervolume(points, reference)
    study = Study(file, census, optuna.storages.InMemoryStorage())
    for _ in range(trials):
        asked = study.ask()
        p, value = asked.proposal, loss(asked.proposal.design)
        study.tell(
            asked,
            Trial(asked.number, "complete", p.design, p.proxy, p.target, p.cost, file.budget, 0, {"loss": value}),
        )
    done = study.all_trials()
    found = np.array([[t.values["loss"], np.log2(t.cost.cache_bytes)] for t in done])
    return done, hypervolume(found, reference) / best


def test_a_search_by_expected_improvement_repeats_nothing_and_beats_chance() -> None:
    trials, share = run("ehvi", 20, 0)
    assert len({trial.key for trial in trials}) == 20
    assert share > 0.97
    assert share > np.mean([run("random", 20, seed)[1] for seed in range(5)])
    assert [t.key for t in run("ehvi", 12, 0)[0]] == [t.key for t in trials[:12]]
