"""The recipe in words: Markdown, JSON and LaTeX of recipes on synthetic truth."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from synthetic import bare_trial, grid, recipe_of, rule, study, truth

from hybrid_nas.design import Design, Ratio
from hybrid_nas.recipe import describe
from hybrid_nas.recipe_text import latex, markdown, tex
from hybrid_nas.speed import PREDICTED, Speed


def test_recipe_reads_as_markdown_and_json():
    rng = np.random.default_rng(2)
    trials = study(grid(), truth, rng)
    recipe = recipe_of(trials)
    text = markdown(recipe)
    data = json.loads(json.dumps(recipe.to_dict(), allow_nan=False))
    assert set(data["designs"]) == {"knee", "best loss", "best cache_bytes"}
    assert data["designs"]["knee"]["layout"] in data["headline"]
    assert data["headline"] in text
    assert "MiB" in text
    widths = [line.count(" | ") for line in text.splitlines() if line.startswith("|")]
    assert all(width >= 2 for width in widths)


def test_without_evidence_the_recipe_still_reads():
    assert "no answer yet" in markdown(recipe_of([bare_trial(0, 1.0, 10, state="failed", failure="diverged")]))
    alone = recipe_of([bare_trial(0, 1.0, 10)])
    assert alone.rules == ()
    assert "noise was not measured" in alone.headline
    assert "nothing to compare" in markdown(alone)


def test_describe_is_short():
    assert describe(Design(ratio=Ratio(1, 3), d_state=64).to_dict()) == "1:3, spread, d_state 64, RoPE"


def test_the_appendix_is_latex_that_closes_what_it_opens():
    rng = np.random.default_rng(2)
    recipe = recipe_of(study(grid(), truth, rng, own=0.004, recall=lambda d: 0.5))
    text = latex(recipe)
    plain = text.replace("\\{", "").replace("\\}", "").replace("\\%", "")
    assert plain.count("{") == plain.count("}")
    assert text.count("\\begin{table}") == text.count("\\end{table}") == 2
    for table in text.split("\\end{table}")[:2]:
        columns = table.split("\\toprule")[1].splitlines()[1].count(" & ")
        rows = [line for line in table.splitlines() if line.endswith("\\\\")]
        assert len(rows) > 3
        assert {row.count(" & ") for row in rows} == {columns}
    assert "_" not in text.replace("\\_", "").replace("\\label{tab:", "")
    pair = max((p for p in rule(recipe, "ratio").evidence[0].pairs if p.decided), key=lambda p: p.difference)
    assert f"{pair.better} / {pair.worse} & ${pair.difference:.4f}\\ [{pair.low:.4f}, {pair.high:.4f}]$" in text
    assert tex("a_b & 5%") == "a\\_b \\& 5\\%"


def test_the_recipe_says_what_it_agrees_with_and_what_depends_on_what():
    rng = np.random.default_rng(2)
    designs = grid(ratios=("1:1", "1:3", "1:5"))
    trials = study(designs, lambda d: truth(d) + 0.1 * (d.placement == "front" and d.d_state == 16), rng, own=0.004)
    recipe = recipe_of(trials)
    text = markdown(recipe)
    assert [i.choices for i in recipe.depends] == [("d_state", "placement")]
    assert recipe.depends[0].statement in text
    verdicts = {f.id: f.verdict for f in recipe.agreement}
    assert verdicts["C4"] == "supported"
    assert "| C4 | Never attention in the first layer. |" in text
    assert "What one attention layer is worth at each depth: loss" in text
    data = json.loads(json.dumps(recipe.to_dict(), allow_nan=False))
    assert {f["id"]: f["verdict"] for f in data["agreement"]} == verdicts
    assert data["positions"][0]["parts"][0]["part"] == "first layer"


def test_prices_that_differ_read_unlike_and_the_designs_have_their_speeds():
    """Two designs whose decoding speed is the same in three digits."""
    rng = np.random.default_rng(5)
    trials = study(grid(ratios=("1:5", "0:1"), placements=("middle",), d_states=(64,)), truth, rng, own=0.004)
    speeds = {str(t.design): 3100.0 + 0.2 * i for i, t in enumerate(trials)}
    costs = [replace(t.cost, speed=Speed(PREDICTED, "h100", speeds[str(t.design)], 0.031, 1.0, 1.0)) for t in trials]
    trials = [t.with_changes(cost=c) for t, c in zip(trials, costs, strict=True)]
    recipe = recipe_of(trials, "loss", "decode_tokens_per_s")
    for price in recipe.prices.values():
        low, high = re.findall(r"(\S+) ktokens/s", price.sentence)
        assert low != high
        assert float(low) * 1000 == pytest.approx(price.cheaper_cost, abs=1)
    assert recipe.prices
    head = next(line for line in markdown(recipe).splitlines() if line.startswith("|  | trial"))
    assert "| decoding speed | cache |" in head
