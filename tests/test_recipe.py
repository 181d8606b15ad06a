"""The recipe on synthetic truth: planted effects are found and covered, planted nulls stay undecided."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit
from synthetic import (
    BUDGET,
    PLACEMENT,
    RATIO,
    built,
    grid,
    objectives,
    recipe_of,
    rule,
    study,
    trial,
    truth,
)

from hybrid_nas.choices import option_order, settings_of
from hybrid_nas.design import Design, Ratio
from hybrid_nas.effects import Effects, holm
from hybrid_nas.evidence import Evidence
from hybrid_nas.front import Front
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import latex
from hybrid_nas.student import student, two_sided_p


def effects_of(trials, quantity="loss"):
    values = trainings(trials, quantity)
    return Effects(trials, values, Noise.of(quantity, values))


def test_student_is_scipys():
    for df in (1, 2, 3, 4.5, 10, 33.3, 1000):
        for confidence in (0.5, 0.95, 0.9999):
            assert student(df, confidence) == pytest.approx(stdtrit(df, 0.5 + confidence / 2), rel=1e-8)
        for t in (-3.0, 1e-6, 0.1, 1.0, 2.0, 20.0):
            assert two_sided_p(t, df) == pytest.approx(2 * stdtr(df, -abs(t)), rel=1e-8)
    assert two_sided_p(0.0, 5) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_choices_apply_where_the_design_has_what_they_are_about():
    pure = Design(ratio=Ratio(0, 1), d_state=64)
    assert settings_of(pure) == {
        "ratio": "0:1",
        "mixer": "mamba2",
        "ffn": "swiglu",
        "d_state": "64",
        "head_dim": "scale's own",
    }
    assert "head_dim" not in settings_of(Design(ratio=Ratio(0, 1), mixer="mamba1"))  # which has no heads
    assert "mixer" not in settings_of(Design(ratio=Ratio(1, 0)))
    experts = settings_of(Design(ratio=Ratio(1, 0), ffn="moe"))
    assert (experts["ffn"], experts["experts"], experts["experts_active"]) == ("moe", "8", "1")
    mixed = settings_of(Design(ratio=Ratio(1, 3), window=Fraction(1, 16)))
    assert (mixed["window"], mixed["sinks"], mixed["placement"]) == ("1/16", "0", "spread")
    assert settings_of(Design(ratio=Ratio(1, 0)))["window"] == "full"
    assert settings_of(Design(positions=(0.75, 0.25)))["positions"] == "0.25, 0.75"
    assert sorted(["0:1", "1:12", "1:0", "1:3"], key=option_order) == ["1:0", "1:3", "1:12", "0:1"]
    assert sorted(["128", "full", "16", "1/2"], key=option_order) == ["1/2", "16", "128", "full"]


def test_model_is_least_squares_written_another_way():
    """One seed, no replicate: contrasts and errors against dummy coding with a baseline, on mixed ratios alone."""
    rng = np.random.default_rng(4)
    designs = [d for d in grid() if d.placement and not (d.ratio == Ratio(1, 12) and d.placement == "middle")]
    trials = [trial(i, d, truth(d) + rng.normal(0, 0.01)) for i, d in enumerate(designs)]
    assert len({t.key for t in trials}) == len(trials)
    names = ("placement", "ratio", "d_state")
    levels = {name: sorted({settings_of(d)[name] for d in designs}) for name in names}
    columns = [(name, level) for name in names for level in levels[name][1:]]
    x = np.array([[1.0, *(float(settings_of(d)[n] == v) for n, v in columns)] for d in designs])
    y = np.array([t.values["loss"] for t in trials])
    beta = np.linalg.solve(x.T @ x, x.T @ y)
    df = len(y) - x.shape[1]
    covariance = np.linalg.inv(x.T @ x) * ((y - x @ beta) ** 2).sum() / df
    c = np.zeros(len(beta))
    c[1 + columns.index(("placement", "spread"))], c[1 + columns.index(("placement", "middle"))] = 1, -1
    (found,) = effects_of(trials).by_model("placement", [{"spread": 1.0, "middle": -1.0}])
    assert found.difference == pytest.approx(c @ beta)
    assert found.error == pytest.approx(math.sqrt(c @ covariance @ c))
    assert found.df == df


def test_pairs_are_differences_between_designs_that_differ_in_one_choice():
    rng = np.random.default_rng(5)
    designs = grid(ratios=("1:1", "1:3", "1:5"))
    trials = [trial(i, d, truth(d) + rng.normal(0, 0.01)) for i, d in enumerate(designs)]
    loss = {d: t.values["loss"] for d, t in zip(designs, trials, strict=True)}
    differences = np.array([loss[d] - loss[replace(d, d_state=64)] for d in designs if d.d_state == 16])
    (found,) = effects_of(trials).by_pairs("d_state", [{"16": 1.0, "64": -1.0}])
    assert found.n == 12
    assert found.difference == pytest.approx(differences.mean())
    assert found.df == 11 * 2  # one contrast of a choice with two independent ones
    assert found.error == pytest.approx(differences.std(ddof=1) / math.sqrt(12))


def test_pairs_win_where_seeds_move_every_design_of_a_context_together():
    """Interactions of ratio, placement and d_state are alike within a context, so pairs see sharper than the model."""
    rng = np.random.default_rng(6)
    bumps = {(r, p): rng.normal(0, 0.1) for r in RATIO for p in PLACEMENT}
    designs = grid(ratios=("1:1", "1:3", "1:5"))
    trials = [
        trial(i, d, 2 + bumps[str(d.ratio), d.placement] + 0.02 * (d.d_state == 16) + rng.normal(0, 0.003))
        for i, d in enumerate(designs)
    ]
    effects = effects_of(trials)
    family = [{"16": 1.0, "64": -1.0}]
    (best,), (model,) = effects.contrasts("d_state", family), effects.by_model("d_state", family)
    assert best.method == "pairs"
    assert best.half_width < model.half_width / 5
    assert abs(best.difference - 0.02) < best.half_width


@pytest.mark.slow
def test_intervals_cover_the_truth_and_nulls_stay_undecided():
    """200 studies of 36 designs with seed effects, designs' own misfit, and replicates of front members.

    Coverage of all pairs of options of each choice, and claims about d_state, whose effect is nil.
    """
    rng, full = np.random.default_rng(1), grid()
    hits, total, false_claims = Counter(), Counter(), 0
    for _ in range(200):
        designs = [full[i] for i in rng.choice(len(full), 36, replace=False)]
        trials = study(designs, truth, rng, own=0.01, common=0.02, misfit=0.005)
        effects = effects_of(trials)
        for choice, options in effects.choices.items():
            planted = {"ratio": RATIO, "placement": PLACEMENT}.get(choice, {})
            family = [{a: 1.0, b: -1.0} for a, b in combinations(options, 2)]
            for weights, found in zip(family, effects.contrasts(choice, family), strict=True):
                if found is None:
                    continue
                true = sum(w * planted.get(option, 0.0) for option, w in weights.items())
                hits[choice] += abs(found.difference - true) <= found.half_width
                total[choice] += 1
        false_claims += Evidence.of("d_state", "loss", effects, trials).decided
    assert set(total) == {"ratio", "placement", "d_state"}
    for choice, n in total.items():
        independent = n / len(set(RATIO if choice == "ratio" else PLACEMENT))  # pairs of one choice share options
        bound = 3 * math.sqrt(0.95 * 0.05 / independent)
        assert abs(hits[choice] / n - 0.95) < bound, (choice, hits[choice] / n)
    assert false_claims <= 10 + 3 * math.sqrt(200 * 0.05 * 0.95)


def test_planted_effects_are_claimed_and_sorted_by_worth():
    rng = np.random.default_rng(2)
    recipe = recipe_of(study(grid(), truth, rng, own=0.004, common=0.01))
    ratio, placement, d_state = (rule(recipe, name).evidence[0] for name in ("ratio", "placement", "d_state"))
    assert [r.choice for r in recipe.rules] == ["ratio", "placement", "d_state"]
    assert ratio.worth == pytest.approx(0.08, abs=0.02)
    assert "front" in placement.beaten
    assert placement.kept == ("spread",)
    assert not d_state.decided
    assert d_state.statement.startswith("Undecided between 16, 64 and 128")
    pair = next(p for p in placement.pairs if (p.better, p.worse) == ("spread", "front"))
    assert pair.decided
    assert pair.low < 0.04 < pair.high
    assert pair.more_trials is None


def test_a_decided_claim_holds_through_its_correction():
    rng = np.random.default_rng(9)
    recipe = recipe_of(study(grid(), truth, rng, own=0.02))
    pairs = [p for r in recipe.rules for p in r.evidence[0].pairs]
    assert any(p.decided for p in pairs)
    assert any(not p.decided for p in pairs)
    assert all((p.p_holm < 0.05) == p.decided for p in pairs if not p.split)
    assert all(p.low > 0 for p in pairs if p.decided)


def test_a_rule_that_rests_on_the_designs_of_one_option_says_so():
    """A small state is bad where attention stands in front, and only there; a plain effect rests on nothing."""
    rng = np.random.default_rng(0)
    designs = grid(ratios=("1:1", "1:3", "1:5", "1:12"), placements=("front", "end"), d_states=(16, 64))

    def of(truth):
        trials = [trial(i, d, truth(d) + rng.normal(0, 0.003)) for i, d in enumerate(designs)]
        found = rule(recipe_of(trials), "d_state").evidence[0]
        return found, next(p for p in found.pairs if p.p_holm < 0.05)

    alone, pair = of(lambda d: 2 + 0.1 * (d.placement == "front" and d.d_state == 16))
    assert pair.worse == "16"
    assert pair.difference == pytest.approx(0.05, abs=0.01)
    assert pair.rests_on == "placement front"
    assert abs(pair.without) < 0.01
    assert alone.statement.startswith(
        "No single figure holds between 64 and 16, it depends on placement: with front 64 over 16 by 0."
    )
    assert alone.statement.endswith("with end nothing is clear.")
    assert (pair.decided, alone.decided, alone.beaten, alone.worth, alone.bound) == (False, False, (), 0.0, None)
    trials = [
        trial(i, d, 2 + 0.1 * (d.placement == "front" and d.d_state == 16) + rng.normal(0, 0.003))
        for i, d in enumerate(designs)
    ]
    mean = {
        (p, s): np.mean([t.values["loss"] for t in trials if (t.design.placement, t.design.d_state) == (p, s)])
        for p in ("front", "end")
        for s in (16, 64)
    }
    rows = [line for line in latex(recipe_of(trials)).splitlines() if line.startswith(r"d\_state")]
    for (place, row), said in zip(
        {r.split("with placement ")[1][:3]: r for r in rows}.items(), ("yes", "no"), strict=True
    ):
        name = {"fro": "front", "end": "end"}[place]
        assert f"${mean[name, 16] - mean[name, 64]:.4f}\\ [" in row
        assert row.endswith(f"{said} \\\\")
    plain, pair = of(lambda d: 2 + 0.1 * (d.d_state == 16))
    assert (pair.rests_on, pair.without, plain.beaten) == ("", None, ("16",))


def test_designs_that_coincide_at_the_proxy_are_never_told_apart_by_training():
    """One attention layer in the middle, spread or not, is one model: no evidence, whatever the noise."""
    designs = [
        Design(ratio=Ratio(1, 12), placement=placement, d_state=d_state)
        for placement in ("middle", "spread")
        for d_state in (16, 32, 64, 128, 8)
    ]
    trials = [trial(i, d, 2 + (i % 5) * 0.01) for i, d in enumerate(designs)]
    effects = effects_of(trials)
    assert effects.contrasts("placement", [{"middle": 1.0, "spread": -1.0}]) == [None]
    evidence = Evidence.of("placement", "loss", effects, trials)
    assert evidence.pairs == ()
    assert evidence.statement.startswith("Undecided: too few designs")


def test_more_trials_is_what_the_error_needs():
    """With that many more, the estimated difference is 2.394 (5% two-sided over three claims) + 0.842 (80%) errors."""
    rng = np.random.default_rng(3)
    designs = grid()
    trials = [trial(i, d, 2 + 0.003 * (d.d_state == 16) + rng.normal(0, 0.01)) for i, d in enumerate(designs)]
    effects = effects_of(trials)
    named = list(combinations(effects.choices["d_state"], 2))
    contrasts = effects.contrasts("d_state", [{a: 1.0, b: -1.0} for a, b in named])
    found = {frozenset(pair): contrast for pair, contrast in zip(named, contrasts, strict=True)}
    pairs = [p for p in Evidence.of("d_state", "loss", effects, trials).pairs if p.more_trials]
    assert pairs
    n = len(effects.designs)
    for pair in pairs:
        contrast = found[frozenset((pair.better, pair.worse))]
        error_then = contrast.error * math.sqrt(n / (n + pair.more_trials))
        assert pair.more_trials == 1 or pair.difference / error_then == pytest.approx(2.394 + 0.842, rel=0.03)


def test_stopped_and_failed_trials_are_counted_beside_the_option_they_took():
    rng = np.random.default_rng(0)
    trials = study(grid(), truth, rng)
    lost = Design(ratio=Ratio(0, 1), d_state=16)
    trials += [trial(500, lost, state="stopped"), trial(501, lost, state="failed", failure="diverged")]
    options = {o.option: o for o in rule(recipe_of(trials), "ratio").evidence[0].options}
    assert (options["0:1"].stopped, options["0:1"].failed) == (1, 1)
    assert (options["1:3"].stopped, options["1:3"].failed) == (0, 0)


def test_an_option_with_too_few_trainings_makes_no_claim():
    rng = np.random.default_rng(0)
    designs = [d for d in grid() if d.ratio != Ratio(0, 1)] + [Design(ratio=Ratio(0, 1), d_state=64)]
    trials = study(designs, lambda d: truth(d) + 5 * (d.ratio.attention == 0), rng, replicates=0)
    evidence = rule(recipe_of(trials), "ratio").evidence[0]
    assert set(evidence.thin) == {"1:0", "0:1"}
    assert not any(p.decided for p in evidence.pairs if {p.better, p.worse} & {"1:0", "0:1"})
    assert "fewer than 3 trainings" in evidence.statement


def test_a_contradiction_between_loss_and_recall_is_said():
    rng = np.random.default_rng(0)
    recall = {16: 0.9, 64: 0.5, 128: 0.1}
    designs = [d for d in grid() if d.d_state]
    trials = study(designs, lambda d: 2 - d.d_state / 1000, rng, own=0.004, recall=lambda d: recall[d.d_state])
    found = rule(recipe_of(trials), "d_state")
    assert "Contradiction: loss favours 128 over 16, recall favours 16 over 128." in found.contradictions


def test_what_the_front_gives_away_in_recall_is_said():
    """Recall is no objective; only attention has it, and pure Mamba, cheaper and better in loss, makes the front."""
    rng = np.random.default_rng(0)
    designs = grid(ratios=("1:1", "1:5", "0:1"), placements=("spread",), d_states=(16,))
    trials = study(
        designs, lambda d: 2.0 if d.has_attention else 1.5, rng, recall=lambda d: 0.9 if d.has_attention else 0.1
    )
    headline = recipe_of(trials).headline
    assert "recall is no objective here. The cheapest design with recall" in headline
    assert "is trial 1, `MMAMMMMMAMM` (1:5, spread, d_state 16" in headline
    with_recall = recipe_of(trials, "loss", "recall", "cache_bytes").headline
    assert "no objective" not in with_recall


def test_price_of_quality_is_the_difference_between_the_ends():
    rng = np.random.default_rng(2)
    trials = study(grid(), truth, rng, own=0.004, common=0.05)
    front = Front.of(trials, objectives(), draws=100)
    recipe = Recipe.of(trials, objectives(), front)
    price = recipe.prices["best cache_bytes"]
    best, cheapest = (front.candidate(front.ends[name]) for name in ("loss", "cache_bytes"))
    values = trainings(trials, "loss")
    one, two = (values[c.key.partition("-")[0]] for c in (cheapest, best))
    assert set(one) == set(two) == {0, 1, 2}
    assert price.difference == pytest.approx(np.mean([one[s] - two[s] for s in range(3)]))
    noise = front.noise["loss"]
    assert noise.own_sd < 0.01 < noise.sd  # the shift of the seeds, 0.05, cancels between designs at equal seeds
    expected = stdtrit(noise.own_df, 0.975) * noise.own_sd * math.sqrt(2 / 3)
    assert price.high - price.difference == pytest.approx(expected, rel=1e-6)
    assert price.cheaper_cost < price.better_cost


def test_the_builder_of_these_studies_makes_real_trials():
    made = trial(3, grid()[0], 2.0)
    assert made.with_changes(number=3).to_dict() == type(made).from_dict(made.to_dict()).to_dict()
    assert made.budget is BUDGET
    assert built(grid()[0])[2].cache_bytes == made.cost.cache_bytes
