"""What more trials would decide: which space can ask which claim, how many trials that takes, and the command."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from synthetic import grid, objectives, study, trial

from hybrid_nas import outlook as module
from hybrid_nas.agreement import _sides, agreement
from hybrid_nas.choices import merged, option_order
from hybrid_nas.design import Design, Ratio
from hybrid_nas.front import Front
from hybrid_nas.noise import Noise, trainings
from hybrid_nas.outlook import Further, affordable, continued, outlook
from hybrid_nas.proposal import Proposal, distinct, drawn
from hybrid_nas.published import CLAIMS
from hybrid_nas.reach import Reach
from hybrid_nas.recipe import Recipe
from hybrid_nas.recipe_text import markdown
from hybrid_nas.shipped import shipped
from hybrid_nas.study_file import read_study


def proposals(name, *settings):
    path = shipped()[name]
    return drawn(read_study(path.read_text(), str(path), settings))


def test_the_doctests():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", sorted({claim.space for claim in CLAIMS if claim.space}))
def test_the_space_that_a_claim_names_holds_both_sides(name):
    found = proposals(name)
    for claim in CLAIMS:
        if claim.space == name:
            options = {s[claim.factor] for p in found if (s := claim.settings(p)) and claim.factor in s}
            assert all(_sides(claim, sorted(options, key=option_order))), claim.id
    assert all(bool(claim.space) == (claim.factor is not None) for claim in CLAIMS)


def test_a_claim_that_this_space_cannot_ask_names_one_that_can():
    rng = np.random.default_rng(0)
    trials = study(grid(ratios=("1:1", "1:3"))[:12], lambda d: 2.0, rng)
    noise = {"loss": Noise.of("loss", trainings(trials, "loss"))}
    found = {f.id: f for f in agreement(trials, noise, drawn=proposals("inter_layer"))}
    assert not found["C7"].askable
    assert "`hybrid-nas search intra_layer` has" in found["C7"].why
    assert found["C1a"].askable  # the space holds pure attention, the trials do not
    assert not found["C1a"].tested
    share = np.mean([not set(p.proxy.layout) - set("AS") for p in proposals("inter_layer")])
    assert found["C1a"].more_trials == int(np.ceil(3 / share))
    hybrids = len({(t.proxy.id, t.seed) for t in trials})
    least = 2.8 * noise["loss"].own_sd * np.sqrt(1 / 3 + 1 / hybrids)
    assert f"a difference of about {least:.4f} nats/token" in found["C1a"].then
    assert not found["C3"].askable


def test_more_trials_decide_what_they_are_said_to():
    """A planted difference that 24 trials leave open: with the trials named, 4 studies in 5 and more decide it."""
    designs = grid(d_states=tuple(range(8, 136, 8)))

    def truth(design):
        return 2 + 0.02 * (design.placement == "front")

    def asked(n, seed):
        rng = np.random.default_rng(seed)
        some = [designs[i] for i in rng.choice(len(designs), n, replace=False)]
        trials = study(some, truth, rng, own=0.02)
        noise = {"loss": Noise.of("loss", trainings(trials, "loss"))}
        return agreement(trials, noise, [claim for claim in CLAIMS if claim.id == "C4"])[0]

    open_ = [f for f in (asked(24, seed) for seed in range(40)) if f.tested and f.verdict == "undecided"]
    assert len(open_) > 10
    near = [f.more_trials for f in open_ if f.more_trials and -0.025 < f.difference < -0.015]
    more = int(np.median(near))
    assert 5 < more < 200
    decided = [asked(24 + more, 100 + seed).verdict for seed in range(40)]
    assert decided.count("supported") >= 24  # the power of 80% is for an error that is known
    assert "contradicted" not in decided


def test_steps_are_gathered_and_the_affordable_one_is_the_last_near():
    rng = np.random.default_rng(2)
    trials = study(grid(), lambda d: 2 + 0.004 * (d.d_state == 16), rng, own=0.01)
    recipe = Recipe.of(trials, objectives(), Front.of(trials, objectives(), draws=50))
    searched = len({t.key for t in trials})
    assert [s.trials for s in recipe.outlook] == sorted(s.trials for s in recipe.outlook)
    assert all(s.trials == searched + s.more for s in recipe.outlook)
    named = [name for s in recipe.outlook for name in s.decided]
    wanted = [f"claim {f.id}" for f in recipe.agreement if f.more_trials is not None]
    evidence = [e for rule in recipe.rules for e in rule.evidence]
    wanted += [f"a pair of {e.choice} (loss)" for e in evidence if e.more_trials is not None]
    assert sorted(named) == sorted(wanted)
    assert outlook([], [], 10) == ()
    steps = (Further(20, 10, ("claim C1a", "claim C2", "a pair of ratio (loss)")), Further(300, 290, ("claim C4",)))
    assert affordable(steps) == steps[0]
    assert affordable(steps[1:]) == steps[1]
    assert steps[0].told == "claims C1a and C2, a pair of ratio (loss)"
    text = markdown(recipe, "hybrid-nas search space --trials=24 --seed 1")
    step = affordable(recipe.outlook)
    assert f"hybrid-nas search space --seed 1 --trials {step.trials}" in text
    assert continued("hybrid-nas search s", 5) == "hybrid-nas search s --trials 5"


def test_choices_that_always_go_together_are_one():
    """In hybrid.yaml concat comes with a joint output and difference with separate ones."""
    pairs = (("concat", "joint"), ("difference", "separate"))
    designs = [
        Design(family="intra", ratio=Ratio(1, r), fusion=fusion, output=output)
        for r in (1, 3, 5)
        for fusion, output in pairs
    ]
    trials = [trial(i, design, 2.0) for i, design in enumerate(designs)]
    settings = merged(trials)
    assert {settings(t)["fusion and output"] for t in trials} == {"concat + joint", "difference + separate"}
    assert "fusion" not in settings(trials[0])
    apart = [*trials, trial(9, Design(family="intra", ratio=Ratio(1, 1), fusion="difference", output="joint"), 2.0)]
    assert merged(apart)(trials[0])["fusion"] == "concat"


def test_no_design_is_advised_that_the_space_does_not_hold():
    """The same trials, once of a space of any size and once of one that they fill: trials become trainings."""
    rng = np.random.default_rng(2)
    trials = study(grid(), lambda d: 2 + 0.004 * (d.d_state == 16), rng, own=0.01)
    front = Front.of(trials, objectives(), draws=50)
    searched = len({t.key for t in trials})
    open_ = Recipe.of(trials, objectives(), front)
    full = Recipe.of(trials, objectives(), front, designs=searched)
    assert open_.outlook
    assert (full.outlook, open_.beyond) == ((), "")
    assert f"All {searched} designs of the space have their trial" in full.beyond
    trainings = len({(t.proxy.id, t.seed) for t in trials})
    for one, other in zip(open_.agreement, full.agreement, strict=True):
        assert other.more_trials is None
        if one.tested and one.more_trials is not None:
            assert other.more_trainings == int(np.ceil(trainings * one.more_trials / searched))
    text = markdown(full, "hybrid-nas search space --trials 24")
    assert "more trials" not in text.split("## How this was found")[0].replace("## What more trials would decide", "")
    assert "--trials 24" not in text
    assert full.beyond in text
    some = Recipe.of(trials, objectives(), front, designs=searched + 10)
    assert all(step.more <= 10 for step in some.outlook)


def test_a_table_counts_designs_and_not_their_seeds():
    rng = np.random.default_rng(4)
    trials = study(grid(), lambda d: 2.0, rng, replicates=2, replicate_all=True)
    table = [t.with_changes(replicate_of=None) for t in trials]
    designs = len({t.key for t in trials})
    assert len(table) == 3 * len(grid())
    reach = Reach.of(table, designs + 5)
    assert (reach.searched, reach.left) == (designs, 5)
    assert reach.split(5) == (5, None)
    assert reach.split(designs) == (None, len({(t.proxy.id, t.seed) for t in trials}))


def test_distinct_counts_what_a_study_allows():
    text = """
name: few
ratio: ["1:1", "1:3", "0:1"]
placement: [spread, front]
d_state: [16, 32]
"""
    study_file = read_study(text, "few.yaml")
    keys = {Proposal.of(design, study_file).key for design in study_file.space.enumerate()}
    assert distinct(study_file) == len(keys) == 10  # placement is asked of the two mixed ratios alone
