"""The page: complete, self-contained, safe with any text, and its pictures hold the numbers of the front."""

from __future__ import annotations

import base64
import doctest
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from synthetic import bare_trial, curve, grid, objectives, study, trial

from hybrid_nas import units
from hybrid_nas.attainment import attainment
from hybrid_nas.axes import DARK, LIGHT
from hybrid_nas.front import Front
from hybrid_nas.importance import importances
from hybrid_nas.plot import attainment_figure, curves_figure, front_figure, numbers_of, thinned
from hybrid_nas.plot_recipe import effects_figure, interaction_figure, positions_figure
from hybrid_nas.recipe import Recipe, common, describe
from hybrid_nas.report import page, write_report

EVIL = '</script><script>alert("x")</script><img src=x onerror=alert(1)>'
INFO = {
    "name": f"inter {EVIL}",
    "command": f"hybrid-nas search space.yaml --out {EVIL}",
    "study": f"name: {EVIL}",
    "sampler": "tpe",
    "seed": 3,
    "seconds": 541.0,
    "device": f"cpu {EVIL}",
    "versions": {"torch": EVIL},
    "implementations": {"ssd": "chunked"},
    "refused": {f"too deep {EVIL}": 7},
    "target": {"name": EVIL},
    "data": EVIL,
    "size": 67,
    "status": "interrupted",
}


class Reader(HTMLParser):
    """Text outside scripts and styles, what tags there are, what they point to, JSON by id or figure."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.links, self.handlers = "", [], [], []
        self.inside: str | None = None
        self.scripts: list[tuple[dict, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if tag in ("script", "style"):
            self.inside = tag
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = attrs, text + data
        else:
            self.text += data


def data_of(text: str) -> dict:
    """The charts and rows that the page carries."""
    packed = [script for attrs, script in Reader(text).scripts if attrs.get("id") == "data"]
    return json.loads(gzip.decompress(base64.b64decode(packed[0]))) if packed else {"figures": {}, "rows": []}


@pytest.fixture(scope="module")
def studied():
    rng = np.random.default_rng(2)
    trials = study(
        grid(),
        lambda d: 2 - 0.05 * (d.ratio.attention > 0) + 0.02 * (d.placement == "front"),
        rng,
        own=0.005,
        common=0.01,
        recall=lambda d: 0.2 + 0.6 * (d.ratio.attention > 0),
    )
    trials = [t.with_changes(curve=curve(t.values["loss"])) for t in trials]
    n = len(trials)
    trials.append(trial(n, grid()[5], state="stopped", curve=curve(2.2, share=0.5)))
    trials.append(trial(n + 1, grid()[6], state="failed", failure=EVIL))
    front = Front.of(trials, objectives(), draws=200)
    return trials, front, Recipe.of(trials, objectives(), front)


def test_units_read_as_documented():
    assert doctest.testmod(units).failed == 0


def test_the_page_is_whole_and_points_nowhere(studied, tmp_path):
    trials, front, recipe = studied
    path = tmp_path / "report.html"
    write_report(INFO, trials, objectives(), front, recipe, path)
    text = path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert len(text.encode()) < 3e6
    page_read = Reader(text)
    ids = set(re.findall(r' id="([^"]+)"', text))
    ids |= {f"t{number}" for number, *_ in data_of(text)["rows"]}  # the script writes these
    assert all(link == "data:," or (link[0] == "#" and link[1:] in ids) for link in page_read.links)
    assert not re.search(r"@import|url\(", text.split("</style>")[0])
    (library,) = [s for attrs, s in page_read.scripts if dict(attrs).get("id") == "library"]
    assert "plotly.js v" in gzip.decompress(base64.b64decode(library)).decode()
    answer = recipe.answer.replace("`", "")
    assert answer in page_read.text
    assert page_read.text.index(answer) < page_read.text.index("The front")
    for heading in ("Designs on the front", "Rules", "Loss curves", "All trials", "Run again"):
        assert heading in page_read.text
    assert "The study was interrupted" in page_read.text
    assert f"{len(front.candidates)} designs of a space of 67" in page_read.text


def test_text_from_outside_is_text(studied):
    trials, front, recipe = studied
    page_read = Reader(page(INFO, trials, objectives(), front, recipe))
    assert page_read.handlers == []
    assert "img" not in page_read.tags
    assert not any(script.startswith("alert") for _, script in page_read.scripts)
    assert page_read.text.count(EVIL) >= 7  # shown as written, everywhere it was given
    failed = next(cells for _, state, *_, cells in data_of(page(INFO, trials, objectives(), front, recipe))["rows"]
                  if state == "failed")  # fmt: skip
    assert failed[-1] == EVIL  # which the script sets as text


def test_layouts_are_drawn_block_by_block(studied):
    trials, front, recipe = studied
    text = page({}, trials, objectives(), front, recipe)
    drawn = re.findall(r'aria-label="(\w+)"[^>]*>((?:<i data-b="\w">\w</i>)+)</div>', text)
    assert [label for label, _ in drawn] == [x for c in front.members for x in (c.layout, c.proxy_layout)]
    for label, blocks in drawn:
        assert "".join(re.findall(r'data-b="(\w)"', blocks)) == label


def test_every_trial_is_in_the_table_with_its_sort_keys(studied):
    trials, front, recipe = studied
    rows = data_of(page({}, trials, objectives(), front, recipe))["rows"]
    assert [row[0] for row in rows] == [t.number for t in trials]
    assert [row[1] for row in rows] == [t.state for t in trials]
    assert sorted(row[0] for row in rows if row[2]) == sorted(n for c in front.members for n in c.trials)
    assert {row[0] for row in rows if row[3]} == {n for c in front.candidates for n in c.trials}
    caches = [cells[6] for *_, cells in rows]
    assert [value for value, _ in caches] == [t.cost.cache_bytes for t in trials]
    assert all(text.endswith("iB") for _, text in caches)
    losses = [cells[4][0] for *_, cells in rows]
    assert losses == [t.values.get("loss") for t in trials]


def test_of_very_many_designs_the_picture_holds_the_members_and_a_sample():
    rng = np.random.default_rng(0)
    trials = [bare_trial(i, 2 + float(rng.normal()), 10 + i) for i in range(2000)]
    front = Front.of(trials, objectives())
    figure = front_figure(front)
    drawn = numbers_of(figure)
    assert {c.number for c in front.members} <= drawn
    rest = 2000 - len(front.members)
    assert len(drawn) == 1500 + len(front.members)
    assert f"1,500 of {rest:,} other designs" in {trace.name for trace in figure.data}


def test_the_front_figure_holds_the_fronts_numbers(studied):
    _, front, _ = studied
    figure = front_figure(front)
    traces = {trace.name: trace for trace in figure.data}
    members = traces["front"]
    assert list(members.y) == [c.estimates["loss"].mean for c in front.members]
    assert list(members.x) == [c.cost.cache_bytes for c in front.members]
    halves = [c.estimates["loss"].high - c.estimates["loss"].mean for c in front.members]
    assert list(members.error_y.array) == halves
    assert len(traces["other designs"].x) == len(front.candidates) - len(front.members)
    band = next(trace for name, trace in traces.items() if name and name.startswith("within the noise floor"))
    steps = next(t for t in figure.data if t.mode == "lines" and not t.fill)
    assert np.allclose(np.array(band.y) - np.array(steps.y), front.noise["loss"].same_seed_floor)


def test_the_effects_figure_marks_what_is_decided(studied):
    _, _, recipe = studied
    evidence = {r.choice: r.evidence[0] for r in recipe.rules}
    assert evidence["placement"].beaten == ("front",)
    traces = {trace.name: trace for trace in effects_figure(recipe, "loss").data}
    beaten = [o.effect for e in evidence.values() for o in e.options if o.option in e.beaten]
    assert sorted(traces["beaten by some option"].x) == sorted(beaten)
    shown = sum(len(trace.x) for trace in traces.values())
    assert shown == sum(o.effect is not None for e in evidence.values() for o in e.options)


def test_curves_leave_replicates_out_and_keep_the_stopped(studied):
    trials, front, _ = studied
    figure = curves_figure(trials, front)
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    drawn = sum(list(trace.x).count(None) for trace in lines)
    assert drawn == sum(t.replicate_of is None and t.state != "failed" for t in trials)
    stopped = next(trace for trace in lines if trace.name == "stopped early")
    assert max(x for x in stopped.x if x is not None) == 50_000


def test_every_colour_has_a_dark_partner(studied):
    """The page swaps colours by text, so a light colour that is another's beginning would spoil it."""
    trials, front, recipe = studied
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert not set(LIGHT.values()) & set(DARK.values())
    figures = [front_figure(front), curves_figure(trials, front), effects_figure(recipe, "loss")]
    figures += [attainment_figure(attainment(trials, front)), *map(positions_figure, recipe.positions)]
    figures += map(interaction_figure, recipe.interactions)
    used = set(re.findall(r"#[0-9a-f]{6}", "".join(f.to_json() for f in figures)))
    assert used <= set(LIGHT.values())


@pytest.mark.parametrize(
    ("names", "trials"),
    [
        (("loss", "cache_bytes"), []),
        (("loss", "cache_bytes"), [bare_trial(0, 1.0, 10, state="failed", failure="diverged")]),
        (("loss", "cache_bytes"), [bare_trial(0, 1.0, 10)]),
        (("loss",), [bare_trial(i, 1.0 + i, 10 - i) for i in range(3)]),
        (("cache_bytes",), [bare_trial(i, 1.0 + i, 10 - i) for i in range(3)]),
        (("cache_bytes", "params"), [bare_trial(i, 1.0 + i, 10 - i) for i in range(3)]),
        (("loss", "recall"), [bare_trial(i, 1.0, 10, values={"recall": i / 3}) for i in range(3)]),
        (
            ("loss", "recall", "cache_bytes", "decode_flops_per_token"),
            [bare_trial(i, 1.0 + i, 10 - i, values={"recall": i / 5}) for i in range(4)],
        ),
    ],
)
def test_a_thin_study_has_a_page_too(names, trials):
    front = Front.of(trials, objectives(*names))
    recipe = Recipe.of(trials, objectives(*names), front)
    text = page({}, trials, objectives(*names), front, recipe)
    figures = data_of(text)["figures"]
    assert bool(figures) == bool(front.candidates)
    for said in (recipe.answer, *recipe.beside):
        assert said.replace("`", "") in Reader(text).text
    if front.candidates:
        assert "noise is unknown" in text or not any(o.trained for o in objectives(*names))


def test_designs_told_apart_by_cost_alone_are_named():
    trials = [bare_trial(0, 1.0, 10, proxy=0), bare_trial(1, 1.0, 11, proxy=0, shared_with=0), bare_trial(2, 2.0, 5)]
    front = Front.of(trials, objectives())
    text = page({}, trials, objectives(), front, Recipe.of(trials, objectives(), front))
    assert "Told apart by cost alone" in text
    assert "trials 0 and 1" in text
    assert data_of(text)["rows"][1][-1][-1] == "shares the training of 0"


def test_the_search_is_shown_as_it_grew(studied):
    """The last step is the whole of the front's hypervolume, which is there with the last member."""
    trials, front, _ = studied
    trials = [t.with_changes(tokens=1000, seconds=2.0) for t in trials]
    steps = attainment(trials, front)
    searched = [t for t in trials if t.replicate_of is None]
    assert steps[-1].share == pytest.approx(1)
    assert steps[-1].tokens == 1000 * len(searched)
    assert steps[-1].seconds == pytest.approx(2.0 * len(searched))
    shares = [step.share for step in steps]
    assert shares == sorted(shares)
    assert {step.number for step in steps if step.member} == {c.number for c in front.members}
    last = max(c.number for c in front.members)
    assert next(step for step in steps if step.number == last).share == pytest.approx(1)
    traces = attainment_figure(steps).data
    assert [trace.visible for trace in traces] == [True, True, False, False]
    assert list(traces[0].y)[1:] == shares


def test_curves_are_thinned_and_keep_their_ends():
    points = curve(2.0, steps=500)
    kept = thinned(points)
    assert len(kept) <= 62
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:50]) == list(points[:50])


def test_importance_is_optunas_beside_what_chance_gives(studied):
    """PED-ANOVA straight from Optuna, of the best five or tenth; a planted choice is beyond chance, a null is not."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    from hybrid_nas.choices import settings_of

    trials, _, recipe = studied
    found = importances(trials, "loss")
    assert sum(one.share for one in found.values()) == pytest.approx(1)
    assert importances(trials[:5], "loss") == {}
    text = page({}, trials, objectives(), Front.of(trials, objectives(), draws=50), recipe)
    assert all(f"</span>{one.share:.0%}" in text for one in found.values())

    rng = np.random.default_rng(0)
    rows = [trial(i, d, 2 - d.d_state / 1000 + rng.normal(0, 0.001)) for i, d in enumerate(grid(("1:1", "1:3")))]
    by_state = importances(rows, "loss")
    assert by_state["d_state"].shown
    assert not by_state["ratio"].shown
    assert by_state["d_state"].best == 5
    study_ = optuna.create_study()
    for row in rows:
        params = {name: settings_of(row.design)[name] for name in by_state}
        spaces = {
            name: optuna.distributions.CategoricalDistribution(sorted({settings_of(r.design)[name] for r in rows}))
            for name in by_state
        }
        study_.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=row.values["loss"]))
    theirs = get_param_importances(study_, evaluator=PedAnovaImportanceEvaluator(target_quantile=5 / len(rows)))
    assert {name: one.share for name, one in by_state.items()} == pytest.approx(theirs)


def test_designs_far_off_leave_the_picture_of_the_front():
    """Nine alike and one far worse: the picture shows the nine, and its other range holds all."""
    trials = [bare_trial(i, 1.0 + i / 100, 10 + i) for i in range(9)] + [bare_trial(9, 9.0, 500)]
    front = Front.of(trials, objectives())
    figure = front_figure(front)
    ranges = figure.layout.meta
    assert ranges["beyond"] == 1
    assert figure.layout.yaxis.range == tuple(ranges["near"]["yaxis"])
    assert ranges["near"]["yaxis"][0] < 1.0
    assert 1.08 < ranges["near"]["yaxis"][1] < 1.2
    assert ranges["all"]["yaxis"][1] > 9.0
    assert ranges["all"]["xaxis"][1] > np.log10(500) > ranges["near"]["xaxis"][1]
    text = page({}, trials, objectives(), front, Recipe.of(trials, objectives(), front))
    assert "1 design far off is out of the picture" in text
    alike = Front.of(trials[:9], objectives())
    assert front_figure(alike).layout.meta is None


def test_choices_that_all_designs_share_are_said_once(studied):
    trials, _, _ = studied
    shared = common(t.design for t in trials)
    assert "d_state" not in shared
    assert "ratio" not in shared
    assert shared["position"] == "rope"
    assert "RoPE" not in describe(trials[0].design.to_dict(), shared)
    assert "RoPE" in describe(trials[0].design.to_dict())
    assert common([trials[0].design]) == {}


def test_verdicts_on_published_claims_are_in_the_page(studied):
    trials, front, recipe = studied
    text = page({}, trials, objectives(), front, recipe)
    rows = dict(re.findall(r"<tr><td>(\w+)</td><td>.*?<span class='verdict (\w+)'>", text))
    assert rows == {f.id: f.verdict for f in recipe.agreement if f.tested}
    assert rows["C4"] == "supported"


def test_five_hundred_trials_fit_into_five_megabytes():
    rng = np.random.default_rng(0)
    states = tuple(range(8, 248, 8))
    designs = grid(d_states=states)[:490]
    trials = study(designs, lambda d: 2 - d.d_state / 5000 if d.d_state else 2.0, rng, own=0.005)
    trials = [t.with_changes(curve=curve(t.values["loss"], steps=400)) for t in trials]
    assert len(trials) >= 500
    front = Front.of(trials, objectives(), draws=100)
    recipe = Recipe.of(trials, objectives(), front)
    assert len(page(INFO, trials, objectives(), front, recipe).encode()) < 5e6


@pytest.mark.slow
def test_ten_thousand_trials_fit_too():
    rng = np.random.default_rng(0)
    trials = [
        bare_trial(i, 2 + float(rng.normal()), 10 + i, values={"recall": float(rng.random())}, curve=curve(2.0))
        for i in range(10_000)
    ]
    front = Front.of(trials, objectives(), draws=0)
    text = page(INFO, trials, objectives(), front, Recipe.of(trials, objectives(), front))
    assert len(text.encode()) < 5e6
    assert len(data_of(text)["rows"]) == 10_000


def test_facts_of_the_run_are_those_of_its_trials():
    """An idle repetition writes 1 s and a table marks no seed as a replicate; the trials say what was spent."""
    designs = grid()[:4]
    trials = [
        trial(i, design, loss=2 + 0.01 * i, recall=0.5, seed=seed, seconds=50.0)
        for i, (seed, design) in enumerate((seed, design) for seed in range(3) for design in designs)
    ]
    front = Front.of(trials, objectives(), draws=20)
    text = page({"seconds": 1.2}, trials, objectives(), front, Recipe.of(trials, objectives(), front))
    assert "4 designs trained to the end, 12 trainings at 3 seeds, 0 stopped early" in text
    assert "10 min 0 s of training" in text
    assert "1.2 s" not in text


def test_a_replicate_goes_by_its_designs_number():
    again = trial(1_000_000, grid()[0], loss=2.1, recall=0.5, seed=1, replicate_of=0)
    trials = [trial(0, grid()[0], loss=2.0, recall=0.5), again]
    front = Front.of(trials, objectives(), draws=20)
    rows = data_of(page({}, trials, objectives(), front, Recipe.of(trials, objectives(), front)))["rows"]
    assert [row[-1][0] for row in rows] == [[0, "0"], [1_000_000, "0, seed 1"]]
