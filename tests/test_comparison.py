"""Runs beside each other: agreement of planted orders, one reference for all, and what cannot be compared."""

from __future__ import annotations

import doctest
import html
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from synthetic import BUDGET, bare_trial, grid, objectives, study, trial

from hybrid_nas import comparison_page as comparison_page_module
from hybrid_nas import roofline
from hybrid_nas.comparison import Comparison
from hybrid_nas.comparison_page import agreement_figure, comparison_page, fronts_figure, statement
from hybrid_nas.design import Design, Ratio
from hybrid_nas.front import Front
from hybrid_nas.roofline import predicted_speed
from hybrid_nas.speed import Load

RATIO = {"1:0": -0.05, "1:1": -0.04, "1:3": -0.02, "1:5": -0.01, "1:12": 0.0, "0:1": 0.03}


def truth(design):
    return 2 + RATIO[str(design.ratio)] + 0.02 * (design.placement == "front") - (design.d_state or 64) / 5000


def run(name, seed, scale=1.0, noise=0.002, designs=None, names=("loss", "cache_bytes"), budget=100_000):
    rng = np.random.default_rng(seed)
    trials = study(designs or grid(), lambda d: 1 + scale * truth(d), rng, own=noise)
    trials = [t.with_changes(budget=replace(BUDGET, tokens=budget), tokens=budget, seconds=2.0) for t in trials]
    return name, "paper-350m", trials, objectives(*names)


def test_agreement_is_scipys_over_the_shared_designs():
    designs = grid()
    cheap, dear = run("cheap", 0, noise=0.01, designs=designs[:30], budget=50_000), run("dear", 1, designs=designs[10:])
    compared = Comparison.of([cheap, dear])
    (one,) = compared.agreements
    shared = designs[10:30]
    means = []
    for _, _, trials, own in (cheap, dear):
        front = Front.of(trials, own)
        found = {str(c.design): c.estimates["loss"].mean for c in front.candidates}
        means.append([found[str(d.to_dict())] for d in shared])
    same = [i for i in range(len(shared)) if (means[0][i], means[1][i]) not in list(zip(*means, strict=True))[:i]]
    x, y = ([side[i] for i in same] for side in means)
    assert one.n == len(same)
    assert one.kendall.value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert one.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert one.kendall.low < one.kendall.value < one.kendall.high
    assert f"Kendall's tau {one.kendall.value:.2f} [" in statement(one)
    assert len(agreement_figure(one).data[0].x) == one.n


def test_opposite_orders_disagree():
    compared = Comparison.of([run("one", 0), run("two", 1, scale=-1.0)])
    assert compared.agreements[0].kendall.high < 0


def test_fronts_are_measured_in_one_box():
    better = run("better", 0)
    worse = ("worse", *run("worse", 1)[1:])
    worse = (*worse[:2], [t.with_changes(values={"loss": t.values["loss"] + 0.5}) for t in worse[2]], worse[3])
    compared = Comparison.of([better, worse])
    one, two = compared.sides
    assert one.front.reference == two.front.reference
    assert one.share > two.share + 0.3
    assert compared.sides[0].tokens == 100_000 * len(better[2])
    alone = Comparison.of([better, run("again", 0)])
    assert alone.sides[0].share == pytest.approx(alone.sides[1].share)
    names = {trace.name for trace in fronts_figure(compared).data}
    assert names == {"better", "worse"}


def test_it_says_on_which_objectives_runs_are_compared():
    three = ("three", *run("three", 1, names=("loss", "cache_bytes", "params"))[1:])
    compared = Comparison.of([run("two", 0), three])
    assert compared.basis.startswith("Compared on loss and cache, the objectives that all have (three also parameters")
    assert "summed over workers" in compared.basis
    assert compared.basis == compared.to_dict()["basis"]
    assert "left out" not in Comparison.of([run("a", 0), run("b", 1)]).basis


def test_one_model_is_one_design_however_it_is_spelled():
    """Runs with one target: a ratio, and the layout that it comes to there, are the same model and a pair."""
    by_ratio = [trial(i, Design(ratio=Ratio(1, 3), d_state=s), 2.0 + i) for i, s in enumerate((16, 64))]
    spelled = [
        trial(i, Design(layout=t.target.layout, d_state=t.design.d_state), 1 + i) for i, t in enumerate(by_ratio)
    ]
    assert [t.target.id for t in spelled] == [t.target.id for t in by_ratio]
    sides = [("one", "paper-350m", by_ratio, objectives()), ("two", "paper-350m", spelled, objectives())]
    assert Comparison.of(sides).agreements[0].n == 2
    other = [sides[0], ("two", "paper-1b", spelled, objectives())]
    assert Comparison.of(other).agreements[0].n == 0


def test_the_page_says_what_differs():
    text = comparison_page(Comparison.of([run("a", 0, budget=50_000), run("b", 1)]))
    assert "different budgets" in text
    assert "different targets" not in text
    assert text.count('class="plot"') == 2
    assert re.search(r"The fronts beat \d+% \(a\) and \d+% \(b\) of the common box\. a and b order", text)
    assert "Kendall" in text
    other = ("b", "paper-1b", *run("b", 1)[2:])
    assert "different targets" in comparison_page(Comparison.of([run("a", 0), other]))


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="share no objective"):
        Comparison.of([run("a", 0, names=("loss",)), run("b", 1, names=("cache_bytes",))])
    failed = ("b", "paper-350m", [bare_trial(0, 1.0, 10, state="failed", failure="diverged")], objectives())
    with pytest.raises(ValueError, match="b has no trial that was trained to the end"):
        Comparison.of([run("a", 0), failed])
    apart = Comparison.of([run("a", 0, designs=grid()[:6]), run("b", 1, designs=grid()[-6:])])
    assert apart.agreements[0].kendall is None
    assert "0 designs in common: too few" in statement(apart.agreements[0])


def test_speeds_of_unlike_origin_are_labelled_wherever_they_are_compared():
    """Another device, and another context, are as unlike as measured and predicted."""

    def speedy(name, seed, device="h100", context=2048):
        of, target, trials, own = run(name, seed, names=("loss", "decode_tokens_per_s"))
        load = Load(4, context, 1, 8192)
        costs = [replace(t.cost, speed=predicted_speed(t.target, load, roofline.device(device))) for t in trials]
        return of, target, [t.with_changes(cost=c) for t, c in zip(trials, costs, strict=True)], own

    alike = Comparison.of([speedy("one", 0), speedy("two", 1)])
    told = "Decoding speed: predicted for h100 by a roofline, not measured; batch 4 at 2,048 tokens"
    assert alike.unlike == ()
    assert alike.basis.endswith(f" {told}.")
    assert alike.to_dict()["origins"] == {told: ["one", "two"]}
    for other, said in (("a100", 2048), "one: .*h100.*; two: .*a100"), (("h100", 32_768), "at 32,768 tokens"):
        compared = Comparison.of([speedy("one", 0), speedy("two", 1, *other)])
        (warning,) = compared.unlike
        assert "speeds are not of one kind" in warning
        assert re.search(said, warning)
        assert html.escape(warning) in comparison_page(compared)


def test_runs_on_different_text_are_not_ranked_by_loss():
    sides = [run("a", 0), run("b", 1)]
    compared = Comparison.of(sides, {"a": "a corpus of code", "b": "manuals"})
    page = comparison_page(compared)
    assert "trained on different text (a: a corpus of code; b: manuals)" in page
    assert "of the common box" not in page
    assert "a and b order the designs that both trained" in page
    assert compared.to_dict()["one_text"] is False
    alike = Comparison.of(sides, {"a": "manuals", "b": "manuals (20 bytes, 81ab)"})
    assert not Comparison.of(sides, {"a": "manuals (20 bytes, 81ac)", "b": "manuals (20 bytes, 81ab)"}).one_text
    assert alike.unlike == ()
    assert "The fronts beat" in comparison_page(alike)


def test_designs_are_told_from_trainings_and_headings_name_their_quantity():
    trials = study(grid(), truth, np.random.default_rng(0), own=0.002, recall=lambda d: 0.5 + 0.3 * d.has_attention)
    sides = [(name, "paper-350m", trials, objectives()) for name in ("a", "b")]
    compared = Comparison.of(sides)
    one = compared.sides[0]
    assert one.trained == len({t.key for t in trials})
    assert one.trainings == len({(t.proxy.id, t.seed) for t in trials}) > len({t.proxy.id for t in trials})
    headings = re.findall("<h3>(.*?)</h3>", comparison_page(compared))
    assert headings == ["Loss: a and b", "Recall: a and b"]
    assert "cache_bytes" not in re.sub("<script.*", "", comparison_page(compared), flags=re.DOTALL)


def test_a_tau_is_said_in_words():
    assert doctest.testmod(comparison_page_module).failed == 0
    near = Comparison.of([run("one", 0, noise=1e-6), run("two", 1, noise=1e-6)]).agreements[0]
    assert "both call the same one better in 99% of cases" in statement(near)
    shared = Comparison.of([run("cheap", 0, designs=grid()[:30]), run("dear", 1, designs=grid()[:30])]).agreements[0]
    assert shared.n <= shared.shared
    against = Comparison.of([run("one", 0), run("two", 1, scale=-1.0)]).agreements[0]
    assert "they order against each other" in statement(against)
    few = Comparison.of([run("a", 0, designs=grid()[:4]), run("b", 1, designs=grid()[:4])]).agreements[0]
    assert "too few designs for an interval" in statement(few)
