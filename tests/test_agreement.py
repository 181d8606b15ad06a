"""Agreement with what was published: each verdict appears where the truth is planted, and only there."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from synthetic import built, grid, study, trial

from hybrid_nas.agreement import agreement
from hybrid_nas.design import Design, Ratio
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.positions import part_of
from hybrid_nas.published import CLAIMS

STUDIES = 200
LIKE_THE_PAPER = {"1:0": 0.0, "1:1": -0.06, "1:3": -0.045, "1:5": -0.035, "1:12": -0.02, "0:1": 0.03}


PURE = tuple(
    Design(ratio=Ratio(1, 0), kv_heads=share, position=position)
    for share in (None, Fraction(1, 2), Fraction(1, 1))
    for position in ("rope", "none")
)


def findings(trials, **noise):
    quantities = {name for t in trials for name in t.values}
    spread = {name: Noise.of(name, trainings(trials, name)) for name in sorted(quantities)}
    return {finding.id: finding for finding in agreement(trials, spread)}


def published(design):
    return 2 + LIKE_THE_PAPER[str(design.ratio)] + 0.04 * (design.placement == "front")


def reverse(design):
    return 4 - published(design)


def flat(design):
    return 2.0


def test_a_study_like_the_paper_supports_it_and_its_reverse_contradicts_it():
    rng = np.random.default_rng(0)
    space = tuple(dict.fromkeys((*grid(), *PURE)))
    recall = lambda d: 0.2 + 0.6 * d.has_attention  # noqa: E731
    agreed = findings(study(space, published, rng, own=0.003, recall=recall))
    against = findings(study(space, reverse, rng, own=0.003))
    for name in ("C1a", "C1b", "C2", "C4"):
        assert agreed[name].verdict == "supported", agreed[name]
        assert against[name].verdict == "contradicted", against[name]
        assert agreed[name].difference == pytest.approx(-against[name].difference, abs=0.01)
        assert agreed[name].low < agreed[name].difference < agreed[name].high
    assert agreed["C5"].verdict == "supported"
    assert agreed["C19"].verdict == "supported"
    assert against["C19"].verdict == "undecided"
    assert not against["C19"].tested
    assert "no trial has a value of recall" in against["C19"].why


def test_where_nothing_differs_no_claim_of_a_difference_is_decided():
    rng = np.random.default_rng(3)
    full = grid()
    wrong = 0
    for _ in range(STUDIES):
        designs = [full[i] for i in rng.choice(len(full), 36, replace=False)]
        found = findings(study(designs, flat, rng, own=0.01, common=0.02, misfit=0.005))
        kinds = {claim.id: claim.kind for claim in CLAIMS}
        wrong += any(f.verdict != "undecided" for f in found.values() if kinds[f.id] != "equal")
        wrong += any(f.verdict == "contradicted" for f in found.values() if kinds[f.id] == "equal")
    assert wrong / STUDIES < 0.05 + 3 * math.sqrt(0.05 * 0.95 / STUDIES)


def test_likeness_is_contradicted_by_a_difference_beyond_its_margin():
    rng = np.random.default_rng(0)
    trials = study(grid(), lambda d: 2 + 0.1 * (d.placement == "end"), rng, own=0.003)
    assert findings(trials)["C5"].verdict == "contradicted"
    noisy = study(grid(), flat, rng, own=0.1)
    assert findings(noisy)["C5"].verdict == "undecided"


def test_parallel_heads_are_asked_by_their_own_choices():
    """A norm that helps, a scale that hurts, joint projections that cost, fusions that are alike."""
    rng = np.random.default_rng(5)
    made = Design(family="intra", ratio=Ratio(1, 1), d_state=16)
    designs = tuple(
        dict.fromkeys(
            replace(made, norm=norm, scale=scale, fusion=fusion, output=output, ratio=ratio)
            for norm in ("group", "none")
            for scale in ("none", "vector")
            for fusion in ("difference", "add")
            for output in ("separate", "joint")
            for ratio in (Ratio(1, 1), Ratio(1, 3))
        )
    )

    def truth(design):
        bad = 0.02 * (design.norm == "none") + 0.03 * (design.scale == "vector") + 0.02 * (design.output == "joint")
        return 2 + bad + 0.02 * (design.ratio == Ratio(1, 3))

    found = findings([trial(i, d, truth(d) + rng.normal(0, 0.002)) for i, d in enumerate(designs)])
    for name in ("C7", "C8", "C9", "C10", "C12"):
        assert found[name].verdict == "supported", found[name]
    assert not found["C1a"].tested


def test_every_claim_has_a_verdict_and_says_what_it_lacks():
    found = findings([trial(i, d, 2.0 + 0.01 * i) for i, d in enumerate(grid()[:4])])
    assert list(found) == [claim.id for claim in CLAIMS]
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    assert {f.verdict for f in found.values()} == {"undecided"}
    assert all(f.why for f in found.values())
    assert "it needs" in found["C21"].why
    assert "trained to equal FLOPs" in found["C3"].why


def test_a_claim_about_equal_compute_is_asked_of_designs_that_had_it():
    """Rare ratios 0.03 worse at equal FLOPs contradict it, equal ones support it; at equal data it is not asked."""
    for gap, verdict in ((0.0, "supported"), (0.03, "contradicted")):
        rng = np.random.default_rng(0)
        trials = [
            trial(i, d, 2 + gap * (d.ratio in (Ratio(1, 5), Ratio(1, 12))) + rng.normal(0, 0.0005))
            for i, d in enumerate(d for d in grid() if d.family == "inter")
        ]
        equal = [t.with_changes(budget=replace(t.budget, flops=1e12)) for t in trials]
        assert not findings(trials)["C3"].tested
        assert findings(equal)["C3"].verdict == verdict, findings(equal)["C3"]


def test_attention_in_the_first_layer_is_asked_of_one_layer_that_moves():
    """A bad first layer, and a bad first quarter that `front` brings along: the claim is about the former alone."""

    def truth(first, quarter):
        def of(design):
            layout = built(design)[0].layout
            layers = [part_of(i, len(layout)) for i, letter in enumerate(layout) if letter == "A"]
            return 2 + sum({"first layer": first, "first quarter": quarter}.get(part, 0.0) for part in layers)

        return of

    verdicts = {}
    for first, quarter in ((0.03, 0.0), (0.0, 0.03)):
        trials = study(grid(), truth(first, quarter), np.random.default_rng(1), own=0.002)
        verdicts[first, quarter] = findings(trials)["C4"]
    bad, confounded = verdicts.values()
    assert bad.verdict == "supported"
    assert bad.difference == pytest.approx(-0.03, abs=0.01)
    assert confounded.verdict == "undecided", confounded
    assert abs(confounded.difference) < 0.015
    assert "the other layers where they are" in bad.why


def test_where_the_first_layer_comes_with_the_next_ones_the_claim_says_so():
    rng = np.random.default_rng(1)
    designs = grid(ratios=("1:3",), placements=("front", "end"))
    found = findings([trial(i, d, 2 + rng.normal(0, 0.01)) for i, d in enumerate(designs)])["C4"]
    assert (found.verdict, found.tested) == ("undecided", False)
    assert "always comes with further layers right behind it (placement front)" in found.why
