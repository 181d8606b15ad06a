"""Where a difference depends on another choice: planted simple effects are covered, and none is made up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from synthetic import grid, objectives, study, trial

from hybrid_nas.choices import merged
from hybrid_nas.design import Design, Ratio
from hybrid_nas.effects import Effects
from hybrid_nas.evidence import Evidence
from hybrid_nas.front import Front
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import latex, markdown
from hybrid_nas.report_recipe import in_short

STUDIES = 100


def evidence(trials, choice, quantity="loss"):
    values = trainings(trials, quantity)
    effects = Effects(trials, values, Noise.of(quantity, values), merged(trials))
    return Evidence.of(choice, quantity, effects, trials, True)


def crossed(design):
    """A small state is worse by 0.1 with attention in front, and better by 0.02 elsewhere."""
    return 2 + 0.1 * (design.d_state == 16) * (1 if design.placement == "front" else -0.2)


@pytest.mark.slow
def test_planted_simple_effects_are_covered_and_none_is_made_up_where_effects_add():
    rng = np.random.default_rng(4)
    designs = grid(ratios=("1:1", "1:3", "1:5"), d_states=(16, 64))
    hits = total = found = false = 0
    for _ in range(STUDIES):
        trials = study(designs, crossed, rng, own=0.004, misfit=0.004)
        (pair,) = evidence(trials, "d_state").pairs
        if pair.split is not None and pair.split.other == "placement":
            found += 1
            for part in pair.split.parts:
                true = 0.1 if part.option == "front" else -0.02
                sign = 1 if pair.worse == "16" else -1
                total += 1
                hits += part.low <= sign * true <= part.high
        plain = study(designs, lambda d: 2 + 0.02 * (d.d_state == 16), rng, own=0.004, misfit=0.004)
        false += any(p.split for p in evidence(plain, "d_state").pairs)
    assert found > 0.95 * STUDIES
    assert hits / total > 0.95 - 3 * math.sqrt(0.05 * 0.95 / STUDIES)
    assert false / STUDIES < 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)


def test_a_pair_that_turns_round_is_not_decided_and_says_where_it_does():
    rng = np.random.default_rng(0)
    designs = grid(ratios=("1:1", "1:3", "1:5"), placements=("front", "end"), d_states=(16, 64))
    truth = lambda d: 2 + (0.13 if d.placement == "front" else -0.06) * (d.d_state == 16)  # noqa: E731
    trials = study(designs, truth, rng, own=0.003)
    found = evidence(trials, "d_state")
    (pair,) = found.pairs
    assert (pair.decided, found.beaten, found.conditional) == (False, (), ("placement",))
    parts = {part.option: part for part in pair.split.parts}
    sign = 1 if pair.better == "64" else -1
    assert sign * parts["front"].difference == pytest.approx(0.13, abs=0.01)
    assert sign * parts["end"].difference == pytest.approx(-0.06, abs=0.01)
    assert "it depends on placement: with front 64 over 16 by 0.1" in found.statement
    assert "with end 16 over 64 by 0.0" in found.statement
    assert "beats" not in found.statement
    front = Front.of(trials, objectives(), draws=0)
    recipe = Recipe.of(trials, objectives(), front)
    assert "64 over 16 with placement front, 0.1" in in_short(recipe)
    assert r"64 / 16, with placement front & $0.1" in latex(recipe).replace("16 / 64", "64 / 16")
    assert "An average of loss over placement, which no single design gets." in markdown(recipe)


def test_a_pair_of_one_sign_stays_decided_with_its_figure_at_each_option():
    """Mamba-2 alone beats attention alone by 0.6 in whole layers and by 0.05 in parallel ones."""
    rng = np.random.default_rng(1)
    truth = {("1:0", "inter"): 2.65, ("1:0", "intra"): 2.05, ("0:1", "inter"): 2.0}
    designs = [
        Design(
            ratio=Ratio.parse(ratio), family=family, d_state=None if family == "inter" and ratio == "1:0" else d_state
        )
        for ratio, family in truth
        for d_state in (16, 32, 64, 128)
    ]
    designs += [Design(ratio=Ratio(1, 0), position=position) for position in ("none",)]
    designs = list(dict.fromkeys(designs))
    truth_of = lambda d: truth[str(d.ratio), "inter" if d.ratio == Ratio(0, 1) else d.family]  # noqa: E731
    trials = [
        trial(2 * i + seed, d, truth_of(d) + rng.normal(0, 0.004), seed=seed)
        for i, d in enumerate(designs)
        for seed in (0, 1)
    ]
    found = evidence(trials, "ratio")
    (pair,) = found.pairs
    assert pair.decided
    assert (pair.better, pair.split.other) == ("0:1", "family")
    assert {part.option: round(part.difference, 1) for part in pair.split.parts} == {"inter": 0.7, "intra": 0.1} or [
        part.difference for part in pair.split.parts
    ] == pytest.approx([0.65, 0.05], abs=0.02)
    assert found.worth == pytest.approx(0.05, abs=0.02)
    assert "0:1 beats 1:0 by an amount that depends on family, 0.6" in found.statement


def test_where_one_side_was_seen_with_one_option_alone_the_figure_is_of_that_option():
    """Hybrids with positions recall, others do not; 1:5 was tried with RoPE alone, and pure Mamba-2 has neither."""
    rng = np.random.default_rng(2)
    hybrid = [Design(ratio=Ratio(1, 5), placement=p, d_state=s) for p in ("front", "spread", "end") for s in (16, 64)]
    other = [Design(ratio=Ratio(1, 1), position=p, d_state=s) for p in ("rope", "none") for s in (16, 32, 64)]
    mamba = [Design(ratio=Ratio(0, 1), d_state=s) for s in (16, 32, 64)]
    truth = lambda d: 0.02 + 0.96 * (d.has_attention and d.position == "rope")  # noqa: E731
    trials = [
        trial(2 * i + seed, d, 2.0, recall=truth(d) + rng.normal(0, 0.003), seed=seed)
        for i, d in enumerate([*hybrid, *other, *mamba])
        for seed in (0, 1)
    ]
    found = evidence(trials, "ratio", "recall")
    pair = next(p for p in found.pairs if {p.better, p.worse} == {"1:5", "0:1"})
    assert pair.difference == pytest.approx(0.48, abs=0.05)  # the average over a position that 1:5 never had
    (part,) = pair.split.parts
    assert (part.option, pair.decided) == ("rope", True)
    assert part.difference == pytest.approx(0.96, abs=0.02)
    assert "with rope, the only position that was tried there" in found.statement


def test_a_difference_of_accuracies_stays_within_one():
    rng = np.random.default_rng(3)
    designs = grid(ratios=("1:1", "0:1"), placements=("front", "end"), d_states=(16, 32, 64, 128))
    trials = [
        trial(2 * i + seed, d, 2.0, recall=float(d.has_attention * (1 - 0.3 * (rng.random() < 0.2))), seed=seed)
        for i, d in enumerate(designs)
        for seed in (0, 1)
    ]
    values = trainings(trials, "recall")
    effects = Effects(trials, values, Noise.of("recall", values), merged(trials))
    (raw,) = effects.contrasts("ratio", [{"1:1": 1.0, "0:1": -1.0}])
    found = evidence(trials, "ratio", "recall")
    assert raw.difference + raw.half_width > 1  # what the model alone would say
    assert all(-1 <= p.low <= p.difference <= p.high <= 1 for p in found.pairs)
    assert all(-1 <= o.low <= o.effect <= o.high <= 1 for o in found.options)
