"""The report: complete, self-contained, and safe against what users write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from synthetic import grid, trial

from hybrid_nas.front import Front
from hybrid_nas.objective import DEFAULT_OBJECTIVES
from hybrid_nas.recipe import Recipe
from hybrid_nas.report import headline, page, write_report
from hybrid_nas.trial import Point, Trial


def study() -> list[Trial]:
    """A made-up study: loss falls with the cache, three seeds for the best, one stopped, one failed."""
    curve = (Point(1000, 5.0), Point(2000, 3.0, validation=True))
    trials = []
    for number, design in enumerate(grid()[:20]):
        base = 2.0 - 0.01 * (number % 7)
        trials.append(trial(number, design, loss=base, recall=0.5, curve=curve, tokens=2000))
        trials += [
            trial(
                1_000_000 + 10 * number + seed,
                design,
                loss=base + 0.002 * seed,
                recall=0.5,
                seed=seed,
                replicate_of=number,
            )
            for seed in (1, 2)
        ]
    trials.append(trial(50, grid()[30], state="stopped", curve=curve, tokens=2000))
    trials.append(trial(51, grid()[31], state="failed", failure="diverged at step 3 <script>alert(1)</script>"))
    return trials


@pytest.fixture(scope="module")
def made() -> tuple[list[Trial], Front, str]:
    trials = study()
    front = Front.of(trials, DEFAULT_OBJECTIVES)
    recipe = Recipe.of(trials, DEFAULT_OBJECTIVES, front)
    information = {
        "name": "a <b>name</b>",
        "command": "hybrid-nas search 'x y.yaml'",
        "refused": {"too <large>": 3},
        "target": {"name": "paper-350m"},
        "seconds": 61.0,
    }
    return trials, front, page(information, trials, DEFAULT_OBJECTIVES, front, recipe)


def test_every_figure_has_its_data(made: tuple[list[Trial], Front, str]) -> None:
    trials, front, html = made
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', html, re.DOTALL)[1])  # type: ignore[index]
    assert set(figures) == {"front", "effects", "curves"}
    for name in figures:
        assert f'id="{name}"' in html
    drawn = sorted(n for trace in figures["front"]["data"] for n in trace["customdata"])
    assert drawn == sorted(candidate.number for candidate in front.candidates)
    member = front.members[0]
    hover = next(t for trace in figures["front"]["data"] for t in trace["hovertext"] if f"trial {member.number}<" in t)
    assert member.layout in hover
    assert f"{member.value('loss'):.4f}" in hover
    assert len(figures["curves"]["data"]) == 2 * sum(bool(t.curve) and t.replicate_of is None for t in trials)


def test_every_trial_has_its_row(made: tuple[list[Trial], Front, str]) -> None:
    trials, _, html = made
    table = html.split('<table class="sortable">')[1].split("</table>")[0]
    assert table.count("<tr>") == len(trials) + 1


def test_what_users_write_is_escaped(made: tuple[list[Trial], Front, str]) -> None:
    html = made[2]
    assert "<script>alert(1)" not in html
    assert "<b>name</b>" not in html
    assert "too &lt;large&gt;" in html


def test_self_contained_and_small(made: tuple[list[Trial], Front, str], tmp_path: Path) -> None:
    html = made[2]
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="', html)
    trials, front, _ = made
    write_report(
        {}, trials, DEFAULT_OBJECTIVES, front, Recipe.of(trials, DEFAULT_OBJECTIVES, front), tmp_path / "r.html"
    )
    assert 1e6 < (tmp_path / "r.html").stat().st_size < 6e6


def test_headline_claims_no_more_than_the_noise_allows(made: tuple[list[Trial], Front, str]) -> None:
    trials, front, _ = made
    text = headline(front, {"target": {"name": "paper-350m"}})
    assert front.candidate(front.knee or "").layout in text
    noisy = [
        t.with_changes(values={**t.values, "loss": t.values["loss"] + (t.seed == 1) * 0.5}) if t.values else t
        for t in trials
    ]
    front = Front.of([t for t in noisy if t.number % 3 or t.replicate_of is None], DEFAULT_OBJECTIVES)
    text = headline(front, {})
    assert "inside the noise" in text or front.ends["loss"] == front.knee


def test_no_complete_trial() -> None:
    trials = [trial(0, grid()[0], state="failed", failure="x")]
    front = Front.of(trials, DEFAULT_OBJECTIVES)
    html = page({}, trials, DEFAULT_OBJECTIVES, front, Recipe.of(trials, DEFAULT_OBJECTIVES, front))
    assert "no answer" in html
