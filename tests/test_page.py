"""What a reader meets on the page: whiskers, folds, minus signs."""

from __future__ import annotations

import doctest
import re

import numpy as np
import pytest
from synthetic import built, grid, objectives, trial

from hybrid_nas import accuracy, units
from hybrid_nas import page as page_module
from hybrid_nas.front import Front
from hybrid_nas.plot import front_figure
from hybrid_nas.recipe import Recipe
from hybrid_nas.report import page


def test_whiskers_of_an_accuracy_stay_where_an_accuracy_can_be():
    """Few seeds, some of which learn: intervals are wide, and lopsided, and end at 0 and 1 in every picture."""
    rng = np.random.default_rng(0)
    designs = grid(ratios=("1:0", "1:3", "0:1"), d_states=(16, 64))
    trials = [
        trial(
            3 * i + seed, d, 2 + rng.normal(0, 0.01), recall=float(d.has_attention * rng.choice((0.02, 1.0))), seed=seed
        )
        for i, d in enumerate(designs)
        for seed in range(3)
    ]
    wanted = objectives("loss", "recall", "cache_bytes")
    front = Front.of(trials, wanted, draws=0)
    recall = next(o for o in wanted if o.name == "recall")
    drawn = [t for t in front_figure(front, None, recall).data if t.error_y.array]
    assert sum(len(t.y) for t in drawn) == len(front.candidates)
    for trace in drawn:
        assert trace.error_y.symmetric is False
        for at, up, down in zip(trace.y, trace.error_y.array, trace.error_y.arrayminus, strict=True):
            assert -1e-9 <= at - down <= at + up <= 1 + 1e-9
    assert any(
        up != pytest.approx(down) for t in drawn for up, down in zip(t.error_y.array, t.error_y.arrayminus, strict=True)
    )


def test_a_long_front_is_folded_and_the_named_come_first():
    trials = [trial(i, d, 2.0 - 0.01 * i) for i, d in enumerate(by_cache()[:14])]
    front = Front.of(trials, objectives(), draws=0)
    assert len(front.members) > 10
    recipe = Recipe.of(trials, objectives(), front)
    text = page({"name": "long"}, trials, objectives(), front, recipe)
    section = text[text.index("Designs on the front</h2>") :]
    seen, folded = section.split("<details>", 1)
    assert seen.count('class="member"') == 8
    assert folded.startswith(f"<summary>{len(front.members) - 8} further members</summary>")
    assert all(f"trial {c.number}</a>" in seen for c in recipe.named.values())


def by_cache():
    """One design for each size of cache, the smallest first."""
    sizes = {built(d)[2].cache_bytes: d for d in grid()}
    return [sizes[size] for size in sorted(sizes)]


def test_what_is_read_has_minus_signs_and_what_is_copied_has_hyphens():
    for module in (page_module, accuracy, units):
        assert doctest.testmod(module).failed == 0
    trials = [trial(i, d, 2.0 + 0.01 * (i % 5)) for i, d in enumerate(grid()[:30])]
    front = Front.of(trials, objectives(), draws=0)
    info = {"name": "a", "command": "hybrid-nas search a.yaml --set x=-0.5"}
    text = page(info, trials, objectives(), front, Recipe.of(trials, objectives(), front))
    body = re.sub(r"<script.*?</script>|<style.*?</style>|<pre.*?</pre>|<code.*?</code>|<[^>]*>", " ", text, flags=re.S)
    assert re.search(r"[\[ ]\u2212\d", body)
    assert not re.search(r"[\[ ]-\d", body)
    assert "--set x=-0.5" in text
