"""`extrapolate`: planted laws are found and checked, a study's figures come out, mixtures are refused."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hybrid_nas.cli import main
from hybrid_nas.cost import params_nonembedding
from hybrid_nas.study_file import read_study
from hybrid_nas.table_file import SETTING, proposals, same_designs, setting_of, write_part
from hybrid_nas.trial import Point, Trial, read_trials, write_trials

STUDY = Path(__file__).parent.parent / "studies/2026-11_paper_sizes"
SPACE = """
name: small
arms: [{ratio: 1:0}, {ratio: 0:1}, {layout: MMMAMMM}, {layout: AMMMMMM}]
recall_share: 0
target: paper-350m
proxy: {params: 975000, width: 64, ffn_hidden: 256, context: 64, tokens: 100000, batch: 8, rungs: [0.5, 0.9]}
""".replace("recall_share: 0\n", "")
WIDTHS = {32: "256k", 48: "560k", 64: "975k"}
TOKENS = 100_352


def study(width=64, *changes):
    sizes = (f"proxy.width={width}", f"proxy.params={WIDTHS[width]}", f"proxy.ffn_hidden={4 * width}")
    return read_study(SPACE, "small.yaml", (*sizes, "proxy.recall_share=0", *changes))


def truth(arm, params, tokens):
    return 1.5 + 0.1 * arm + (20 + arm) * params**-0.3 + 10 * tokens**-0.25


def planted(width, seeds=3, noise=0.002, file=None, tokens=TOKENS):
    """Trials whose losses at the end follow a law, in a curve whose rungs do not; the third of WIDTHS has all arms."""
    file = file or study(width)
    arms = list(enumerate(proposals([study(64)], None)))
    made, refused = same_designs([_trial(0, proposal, file, 0, 1.0, 1) for _, proposal in arms], file)
    assert [p.target.id for p in made] == [p.target.id for _, p in arms]
    assert refused == []
    rng = np.random.default_rng([width, tokens])
    return [
        _trial(seed * len(made) + arm, p, file, seed, loss + rng.normal(0, noise), tokens)
        for seed in range(seeds)
        for arm, p in enumerate(made)
        for loss in [truth(arm, params_nonembedding(p.proxy), tokens)]
    ]


def _trial(number, p, file, seed, loss, tokens):
    curve = (Point(tokens // 2, 9.0, True), Point(tokens, loss, True))
    return Trial(
        number, "complete", p.design, p.proxy, p.target, p.cost, file.budget, seed, {"loss": loss}, curve, tokens=tokens
    )


def write(folder, width, trials=None, file=None, text="a" * 64, name=None):
    path = folder / f"{name or f'w{width}'}.parquet"
    write_part(planted(width) if trials is None else trials, setting_of(file or study(width), text), path)
    return str(path)


@pytest.fixture
def run(monkeypatch, capsys):
    def command(*arguments, code=0):
        monkeypatch.setattr("sys.argv", ["hybrid-nas", "extrapolate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        found = capsys.readouterr()
        return " ".join((found.err if code else found.out).split())

    return command


def test_the_figures_of_the_recorded_study(run):
    """The README's tables were made by the study's own script."""
    found = json.loads(run(STUDY, "--marks", "--json"))
    readme = (STUDY / "README.md").read_text()
    law = re.search(r"<!-- law -->(.*)<!-- /law -->", readme, re.DOTALL)[1]
    rows = {
        tuple(cell.strip() for cell in line.split("|")[2:5])
        for line in law.splitlines()
        if "[" in line[:70] and "width" not in line
    }
    ours = set()
    for one in found["designs"]:
        left = one["left_out"]
        cast = left["foretold"]
        ours.add(
            (
                f"{left['loss']:.4f}",
                f"{cast['loss']:.4f} [{cast['low']:.4f}, {cast['high']:.4f}]",
                f"{one['loss']:.3f} [{one['low']:.3f}, {one['high']:.3f}]",
            )
        )
    assert ours == rows
    assert len(ours) == 8
    score = found["check"]
    assert f"error {score['error']:.3f} nats per byte" in law
    assert f"{score['inside']} of {score['n']} inside" in law
    for name, before in (("tau", "foretold with measured tau"), ("before", "without a law,")):
        tau = score[name]
        assert f"{before} {tau['value']:.2f} [{tau['low']:.2f}, {tau['high']:.2f}], n = {tau['n']}" in law
    said = " ".join(found["says"])
    assert "the law's order there is not shown to be better than chance" in said
    assert "which the check does not bear out: their order is unproven" in said
    assert "260 times the largest size and 10,000 times the largest number of tokens" in said


def test_a_planted_law_in_size_and_tokens_is_found_and_written(run, tmp_path):
    twice = study(64, "proxy.tokens=200k")
    files = [write(tmp_path, width) for width in WIDTHS]
    for tokens in (200_704, 401_408):
        for width in WIDTHS:
            trials = planted(width, noise=0.001, tokens=tokens)
            trials = [replace(t, budget=replace(t.budget, tokens=tokens)) for t in trials]
            files.append(write(tmp_path, width, trials, twice, name=f"{tokens}-{width}"))
    found = json.loads(run(*files, "--params", "4m", "--tokens", "1m", "--out", tmp_path / "f.csv", "--json"))
    assert found["varied"] == ["params", "tokens"]
    losses = [one["loss"] for one in found["designs"]]
    assert losses == sorted(losses)
    arms = [p.target.id for p in proposals([study()], None)]
    for one in found["designs"]:
        assert one["trainings"] == 27
        assert (one["target_params"], one["target_tokens"]) == (4e6, 1e6)
        expected = truth(arms.index(one["id"]), 4e6, 1e6)
        assert one["loss"] == pytest.approx(expected, abs=0.05)
        assert one["low"] <= expected <= one["high"]
    check = found["check"]
    assert (check["n"], check["designs"], check["ordered"], check["along"]) == (36, 4, 4, "params")
    assert check["error"] < 0.02
    assert check["inside"] >= 30
    assert check["tau"]["value"] == 1.0
    with (tmp_path / "f.csv").open() as source:
        rows = list(csv.DictReader(source))
    assert [float(row["loss"]) for row in rows] == losses
    run(*files, "--out", tmp_path / "f.parquet")
    table = pq.read_table(tmp_path / "f.parquet").to_pylist()
    own = {p.target.id: params_nonembedding(p.target) for p in proposals([study()], None)}
    assert {row["id"]: row["target_params"] for row in table} == own
    assert {row["target_tokens"] for row in table} == {60e9}


def test_one_number_of_tokens_says_so_and_what_has_no_forecast_says_why(run, tmp_path):
    """Losses of rungs (9 nats here) are not used."""
    small, middle, large = (planted(width) for width in WIDTHS)
    designs = [t.target.id for t in large[:4]]
    small = [t for t in small if t.target.id != designs[0]]
    middle = [t for t in middle if t.target.id != designs[0]]
    gone = "diverged at step 3"
    middle, large = (
        [
            replace(t, state="failed", values={}, failure=gone) if t.target.id == designs[1] else t
            for t in trials
        ]
        for trials in (middle, large)
    )  # fmt: skip
    files = [write(tmp_path, w, t) for w, t in zip(WIDTHS, (small, middle, large), strict=True)]
    found = json.loads(run(*files, "--json"))
    assert [one["id"] in designs[2:] for one in found["designs"]] == [True, True]
    for one in found["designs"]:
        expected = truth(designs.index(one["id"]), one["target_params"], TOKENS)
        assert one["target_tokens"] == TOKENS
        assert one["low"] < expected < one["high"]
    assert {row["id"]: row["why"] for row in found["lacking"]} == {
        designs[0]: "3 trainings at one size (977 k) and one number of tokens (100 k)",
        designs[1]: "3 trainings at one size (252 k) and one number of tokens (100 k) (6 failed)",
    }
    told = run(*files)
    assert told.count("no forecast: ") == 2
    assert "the losses are those at 100 k tokens, and what more would do is not known" in told
    assert "so no law says what more would do; leave --tokens out" in run(*files, "--tokens", "60b", code=2)
    two = json.loads(run(*files[1:], "--json"))
    assert two["check"] is None
    assert "Not checked" in two["says"][-2]


def changed(width, **changes):
    return [replace(t, budget=replace(t.budget, **changes)) for t in planted(width)]


def test_what_may_not_be_mixed_is_refused(run, tmp_path):
    first, second = write(tmp_path, 32), write(tmp_path, 48)

    def refused(trials, told, *more, **kept):
        path = write(tmp_path, 64, trials, **kept)
        error = run(first, second, path, "--out", tmp_path / "out.csv", *more, code=2)
        assert told in error
        assert path in error
        assert "Traceback" not in error
        assert not (tmp_path / "out.csv").exists()

    refused(changed(64, batch=16), f"w64.parquet, trial 0: budget.batch is 16, and 8 in {first}, trial 0")
    refused(changed(64, learning_rate=0.01), "learning rates follow no one rule: 0.006 at width 32")
    refused(planted(64), "trained with another text than", text="b" * 64)
    refused(planted(64), "another context than", file=study(64, "proxy.context=32"))
    refused(planted(64), "another target than", file=study(64, "target=paper-1b"))
    other = study(64, "proxy.d_state=32")
    refused([*planted(64), *planted(64, file=other)], "mixer.d_state is 32, and 16 in")
    other = study(64, "proxy.vocab=512")
    refused(planted(64, file=other), "vocabulary is 512, and 256 in")
    silent = tmp_path / "silent.parquet"
    write_trials(planted(64), silent)
    assert "does not say on which text it was trained" in run(first, silent, code=2)
    # One rate for all is a rule too, and so is the default's.
    rates = [write(tmp_path, w, changed(w, learning_rate=0.003), name=f"r{w}") for w in WIDTHS]
    assert len(json.loads(run(*rates, "--json"))["designs"]) == 4
    explicit = write(tmp_path, 64, changed(64, learning_rate=0.003))
    assert len(json.loads(run(first, second, explicit, "--json"))["designs"]) == 4


def test_bad_arguments_leave_nothing_behind(run, tmp_path):
    files = [write(tmp_path, width) for width in WIDTHS]
    endless = [replace(t, values={"loss": float("inf")}) for t in planted(32)]
    endless = write(tmp_path, 32, endless, name="endless")
    damaged = tmp_path / "damaged.parquet"
    write_trials(planted(32), damaged, {SETTING: b'{"budget": {}, "text": 3}'})
    write_trials([], tmp_path / "empty.parquet")
    before = sorted(tmp_path.iterdir())
    for told, *arguments in (
        ("one file is given twice", *files, files[0]),
        ("absent.parquet: no such file", tmp_path / "absent.parquet"),
        ("small.yaml: not a readable Parquet file", _text(tmp_path / "small.yaml")),
        ("endless.parquet, trial 0: loss must be a number above 0, found inf", endless),
        ("damaged.parquet: its metadata does not say how it was trained", damaged),
        ("empty.parquet: no trial is in there", tmp_path / "empty.parquet"),
        ("must end in .csv or .parquet", *files, "--out", tmp_path / "f.txt"),
        ("must be a file in a folder that exists", *files, "--out", tmp_path / "a/f.csv"),
        ("extrapolate: --params: a whole number, or one like 200k", *files, "--params", "big"),
        ("--params: must be at least 1, found 0", *files, "--params", "0"),
        ("3 trainings at one size (9", files[2]),
    ):
        assert told in run(*arguments, code=2)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "small.yaml"])


def _text(path):
    path.write_text(SPACE)
    return path


def test_marks_leave_out_warm_up_and_cool_down(run):
    """By hand from the file: the four held-out losses of each training up to 0.75 of its tokens."""
    from hybrid_nas.trained import trained

    trials = read_trials(STUDY / "trials.parquet")
    by_hand = sorted((p.tokens, p.loss) for t in trials for p in t.curve if p.validation and p.tokens < 7e6)
    assert sorted((p.tokens, p.loss) for of in trained(trials, marks=True) for p in of.points) == by_hand
    late = [replace(t, budget=replace(t.budget, cooldown=0.5, warmup=0.2)) for t in trials]
    assert {p.tokens for of in trained(late, marks=True) for p in of.points} == {1_998_848, 3_997_696}


def test_a_target_below_what_was_trained_is_told_of_as_one_above(run, tmp_path):
    """By hand from the sizes that were planted."""
    files = [write(tmp_path, width) for width in WIDTHS]
    smallest = max(params_nonembedding(t.proxy) for t in planted(32))
    below = run(*files, "--params", "1000")
    times = re.search(r"below what was trained: the smallest size is ([\d,]+) times the target's", below)
    assert int(times[1]) == pytest.approx(smallest / 1000, rel=0.05)
    assert "neither says what holds there" in below
    assert "times the largest" not in below
    above = run(*files, "--params", "1b")
    assert "times the largest size trained" in above
    assert "below what was trained" not in above
    inside = run(*files, "--params", "500k")
    assert "times the largest" not in inside
    assert "below what was trained" not in inside


def test_an_interval_that_reaches_below_0_is_cut_and_told_of(run):
    """The recorded study's first design at the target, whose interval the study's own README has from -0.012."""
    told = run(STUDY, "--marks")
    assert re.search(r" 0\.13\d\d \[0\.0000, 0\.28\d\d\]", told)
    assert "Of 8 designs 1 has an interval that reaches down to 0: it tells next to nothing" in told
    assert "reaches down to 0" not in run(STUDY, "--params", "4m")


def test_one_setting_of_a_file_of_several_is_picked(run, tmp_path):
    """What is left is what a file of it alone gives."""
    files = [write(tmp_path, width) for width in WIDTHS]
    mixed = [
        write(tmp_path, w, [*planted(w), *changed(w, batch=16, learning_rate=0.007)], name=f"mixed{w}") for w in WIDTHS
    ]
    assert "or pick one with --setting batch=8" in run(*mixed, code=2)
    alone, picked = (json.loads(run(*f, "--json")) for f in (files, [*mixed, "--setting", "batch=8"]))
    assert picked == alone
    rates = run(*mixed, "--setting", "batch=16", "--setting", "learning_rate=0.007", "--json")
    assert len(json.loads(rates)["designs"]) == len(alone["designs"])
    assert "no trial has that; batch is 8 in 36 trials; 16 in 36 trials" in run(*mixed, "--setting", "batch=9", code=2)
    assert "KEY is one of batch, clip" in run(*mixed, "--setting", "bath=8", code=2)


def test_words_for_one_are_of_one(run, tmp_path):
    from hybrid_nas.extrapolated import _told

    once = run(write(tmp_path, 64, planted(64, seeds=1)), code=2)
    assert "1 training at one size" in once
    why = {str(i): f"reason {i}" for i in range(4)}
    assert _told(why).endswith("; and 1 more reason")
    assert _told({**why, "4": "reason 4"}).endswith("; and 2 more reasons")
