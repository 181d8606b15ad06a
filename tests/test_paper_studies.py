"""The studies of the paper's tables: predictions follow from trials, scores and fits agree with plain constructions."""

import csv
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from hybrid_nas.data import Corpus, open_corpus
from hybrid_nas.study_file import read_study
from hybrid_nas.table import missing
from hybrid_nas.table_file import proposals, read_part, write_part
from hybrid_nas.table_file import setting_of as table_setting
from hybrid_nas.trial import read_trials

STUDIES = Path(__file__).parent.parent / "studies"
sys.path.append(str(STUDIES))

import paper_choose  # noqa: E402
import paper_predict  # noqa: E402
import paper_score  # noqa: E402
import paper_study  # noqa: E402
from markers import run_of  # noqa: E402
from paper_truth import FUSION, PLACEMENT, POSITIONS, RATIO, SPLIT  # noqa: E402


@pytest.mark.parametrize(("table", "arms"), [("split", SPLIT), ("positions", POSITIONS)])
def test_predictions_follow_from_the_trials(table, arms):
    folder = STUDIES / f"2026-11_paper_{table}"
    trials = read_trials(folder / "trials.parquet")
    text = (folder / "predictions.csv").read_text()
    assert text == paper_predict.csv_text(table, trials)
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["table"], row["arm"]) for row in rows] == [(table, arm) for arm in arms]
    assert all(2.6 < float(row["predicted_loss"]) < 2.9 and 0 < float(row["ci95"]) < 0.05 for row in rows)


@pytest.mark.parametrize("table", ["split", "positions"])
def test_a_predicted_order_says_which_neighbours_it_tells_apart(table):
    """By the published losses and half-widths alone."""
    folder = STUDIES / f"2026-11_paper_{table}"
    with (folder / "predictions.csv").open() as source:
        rows = [(float(r["predicted_loss"]), float(r["ci95"]), r["arm"]) for r in csv.DictReader(source)]
    pairs = list(itertools.combinations(sorted(rows), 2))
    far = [f"{a} and {b}" for (x, h, a), (y, k, b) in pairs if y - x > (h * h + k * k) ** 0.5]
    beside = [f"{a[2]} and {b[2]}" for a, b in itertools.pairwise(sorted(rows))]
    text = (folder / "README.md").read_text()
    assert f"Of all {len(pairs)} pairs {len(far)} are: {'; '.join(far)}." in text
    assert f"({len(set(far) & set(beside))} of {len(rows) - 1} neighbours told apart; " in text


def test_printed_tables_agree_where_they_hold_one_model():
    """A model that two tables print has one loss at 1B; sums check the copying [2510.04800, sections 2 and 3]."""
    placement, ratio, fusion = ({row[0]: row[1] for row in t} for t in (PLACEMENT, RATIO, FUSION))
    for one, other in (("1:1 end", "inter 1:1"), ("1:3 middle", "inter 1:3"), ("1:5 middle", "inter 1:5")):
        assert placement[one] == ratio[other]
    for name in ("attention alone", "Mamba-2 alone"):
        assert placement[name] == ratio[name] == fusion[name]
    assert fusion["norm, none, difference, S, S (pick)"] == ratio["intra 1:0"]
    # Kendall's tau of 350M with 1B, as section 3 of the fact sheet has it: 0.79 on both tables.
    for table, expected in ((PLACEMENT, 0.79), (FUSION, 0.79)):
        both = [(a, b) for _, a, b in table if a is not None and b is not None]
        signs = [np.sign(a - c) * np.sign(b - d) for (a, b), (c, d) in itertools.combinations(both, 2)]
        ties = [sum(x[i] == y[i] for x, y in itertools.combinations(both, 2)) for i in (0, 1)]
        pairs = len(signs)
        tau = sum(signs) / np.sqrt((pairs - ties[0]) * (pairs - ties[1]))
        assert tau == pytest.approx(expected, abs=0.006)


def test_the_composite_is_z_of_text_less_z_of_recall():
    trials = read_trials(STUDIES / "2026-11_paper_ratio" / "trials.parquet")
    of_text = [t for t in trials if t.budget.tokens == 16_000_000]
    of_tasks = [t for t in trials if t.budget.tokens == 12_000_000]
    assert {t.seed for t in of_text} == {t.seed for t in of_tasks} == {0, 1, 2}
    for seeds in ({0, 1, 2}, {1}):
        keys = {t.target.id for t in of_text}
        text = {k: np.mean([t.values["loss"] for t in of_text if t.target.id == k and t.seed in seeds]) for k in keys}
        recall = {
            k: np.mean([t.values["recall"] for t in of_tasks if t.target.id == k and t.seed in seeds]) for k in keys
        }
        ours = paper_score.composite(trials, seed=None if len(seeds) > 1 else 1)
        for key in keys:
            z = (text[key] - np.mean(list(text.values()))) / np.std(list(text.values()))
            z -= (recall[key] - np.mean(list(recall.values()))) / np.std(list(recall.values()))
            assert ours[key] == pytest.approx(z)


def test_a_planted_line_is_found_and_moved_along():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        x = np.column_stack([np.ones(20), rng.normal(size=(20, 2))])
        y = x @ [2.7, 0.02, -0.01] + rng.normal(0, 0.004, 20)
        line = paper_predict.Line.fitted(x, y)
        here, there = np.array([1, 1.0, 0.3]), np.array([1, -0.5, 0.1])
        # The anchor is known exactly; the arm has a residual of its own.
        anchor = float(there @ [2.7, 0.02, -0.01])
        truth = float(here @ [2.7, 0.02, -0.01]) + rng.normal(0, 0.004)
        guess, half = line.moved(anchor, here, there)
        inside += abs(guess - truth) <= half
    assert 0.91 <= inside / 400 <= 0.98


def test_the_naive_error_counts_every_arm_of_the_check():
    """Also the one that its anchor gets exactly right: from the printed losses alone."""
    told = paper_predict.check()
    anchors = {"1:1": "1:1 end", "1:3": "1:3 middle", "1:5": "1:5 middle", "1:12": "1:12 at 7"}
    printed = {row[0]: row[1] for row in PLACEMENT}
    gaps = [
        printed[anchors[arm.split()[0]]] - loss
        for arm, loss in printed.items()
        if arm.split()[0] in anchors and arm not in anchors.values()
    ]
    assert 0 in gaps
    assert f"{len(gaps)} arms" in told
    assert f"{np.sqrt(np.mean(np.square(gaps))):.4f} if every arm" in told


def test_a_score_is_chosen_without_the_table_that_it_is_judged_on():
    """Nothing that the judged table prints moves the choice; what is chosen is the best of all elsewhere, by scipy."""
    placement, ratio = (paper_predict.printed(table) for table in ("placement", "ratio"))
    rows = paper_choose.judged(placement, ratio)
    turned = [replace(arm, printed=other.printed) for arm, other in zip(ratio[1], reversed(ratio[1]), strict=True)]
    again = paper_choose.judged(placement, (ratio[0], turned))
    assert again[0][:3] == rows[0][:3]
    assert again[0][3] != rows[0][3]
    shared = {arm.key for arm in ratio[1]}
    alone = [arm for arm in placement[1] if arm.key not in shared]
    assert len(alone) == 12
    taus = {
        paper_choose.named(name): kendalltau([values[arm.key] for arm in alone], [arm.printed[0] for arm in alone])[0]
        for name, (values, _) in paper_choose.candidates(placement[0]).items()
    }
    assert len(taus) == 15
    assert taus[rows[0][1]] == max(taus.values())


@pytest.fixture
def fusion(tmp_path):
    """The fusion study's folder as a clone has it, with another text under its text's name."""
    folder = tmp_path / "2026-11_paper_fusion"
    folder.mkdir()
    for name in ("study.yaml", "trials.parquet"):
        shutil.copy(STUDIES / folder.name / name, folder / name)
    (folder / "manuals").mkdir()
    text = np.frombuffer(b"any text at all " * 4000, np.uint8)
    arrays = {"train": text, "held_out": text[:8000], "vocab": np.int64(256), "bytes_per_token": np.float64(1)}
    np.savez(folder / "manuals" / "manuals-bytes.npz", **arrays)
    return folder


def test_a_study_refuses_another_text_than_its_trials_had(fusion, capsys, monkeypatch):
    """Before anything is adopted or trained; what a table's part says of its text is what the refusal asks for."""
    monkeypatch.setattr(sys, "argv", ["run.py"])
    known = read_part(STUDIES / "2026-11_hybrid_table" / "trials.parquet")[1]["text"]
    train = np.frombuffer(b"any text at all " * 4000, np.uint8)
    halves = b"".join(hashlib.sha256(part).digest() for part in (train, train[:8000]))
    for begin in (
        lambda: paper_study.run(fusion),
        lambda: paper_study.begin(fusion, "bytes", fusion / "parts" / "bytes.parquet"),
    ):
        with pytest.raises(SystemExit) as refused:
            begin()
        told = capsys.readouterr().err
        assert refused.value.code == 2
        assert hashlib.sha256(halves).hexdigest() in told
        assert f"trained on the manuals-bytes.npz of {known}" in told
        assert not (fusion / "parts").exists()
    for file in fusion.glob("manuals/*"):
        file.unlink()
    with pytest.raises(SystemExit):
        paper_study.run(fusion)
    assert "manuals-bytes.npz does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("study", ["paper_axes", "paper_sizes", "paper_sweep", "hybrid_table"])
def test_every_study_on_manuals_asks_for_its_text(study, tmp_path):
    """Started as a user does, with random ids under the text's name."""
    folder = tmp_path / f"2026-11_{study}"
    shutil.copytree(STUDIES / folder.name, folder)
    for module in STUDIES.glob("*.*"):
        (tmp_path / module.name).symlink_to(module)
    (folder / "manuals").mkdir()
    ids = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8)
    arrays = {"train": ids, "held_out": ids[:9000], "vocab": np.int64(256), "bytes_per_token": np.float64(1)}
    for name in ("manuals-bytes.npz", "manuals-bpe1024.npz"):
        np.savez(folder / "manuals" / name, **arrays)
    command = [sys.executable, str(folder / "run.py"), "--time-limit", "1s"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert "its fingerprint is" in ended.stderr
    assert not (folder / "parts").exists()
    assert (folder / "trials.parquet").read_bytes() == (STUDIES / folder.name / "trials.parquet").read_bytes()


def test_a_study_begins_with_the_trials_that_it_has(fusion, monkeypatch):
    """A clone has no parts: they are made of trials.parquet, and nothing is left to train."""
    folder = fusion
    its = open_corpus(Corpus(str(folder / "manuals" / "manuals-bytes.npz"))).fingerprint
    monkeypatch.setitem(paper_study.TEXTS, "manuals-bytes.npz", its)
    for setting, count in (("small", 26), ("bytes", 26)):
        part = folder / "parts" / f"{setting}.parquet"
        paper_study.begin(folder, setting, part)
        trials, its = read_part(part)
        file = paper_study.study(folder, setting)
        assert its == table_setting(file, open_corpus(Corpus.from_dict(file.data)).fingerprint)
        arms = proposals([file], None)
        assert len(arms) == len(trials) == count
        assert missing(arms, 1, trials) == []


def test_the_sweep_claims_no_more_than_its_intervals_show():
    """The highest tau at the end overlaps the others of the table that it stands under."""
    text = (STUDIES / "2026-11_paper_sweep" / "README.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| width ")]
    ends = [tuple(float(x) for x in re.findall(r"-?\d\.\d\d", row[3])) for row in rows]
    best, *others = sorted(ends, reverse=True)
    beside = sum(high >= best[1] for _, _, high in others)
    assert f"overlaps those of {beside} of the {len(others)} others" in text


def test_the_documents_say_why_the_papers_own_tau_differs():
    """One model has two losses at 350M: with either of them over all arms of both tables, by scipy."""
    rows = {name: (one, small) for name, one, small in RATIO} | {name: (one, small) for name, one, small in PLACEMENT}
    for name, same in (("inter 1:1", "1:1 end"), ("inter 1:3", "1:3 middle"), ("inter 1:5", "1:5 middle")):
        assert rows.pop(name) == rows[same]
    one, again = rows.pop("inter 1:12")
    assert rows["1:12 at 7"] == (one, 2.861)
    text = (STUDIES / "2026-11_paper_ratio" / "README.md").read_text()
    for small, told in ((2.861, "with the first"), (again, "with the second")):
        rows["1:12 at 7"] = one, small
        both = [pair for pair in rows.values() if None not in pair]
        assert f"{kendalltau(*zip(*both, strict=True))[0]:.2f} (n = {len(both)}) {told}" in text


def test_predictions_use_the_means_of_three_seeds():
    trials, of = paper_predict.printed("placement")
    found = paper_predict.points(trials, of)
    for arm in of:
        ours = [t for t in trials if t.target.id == arm.key]
        text = [t.values["loss"] for t in ours if t.budget.tokens == 16_000_000]
        recall = [t.values["recall"] for t in ours if t.budget.tokens == 12_000_000]
        assert len(text) == len(recall) == 3
        assert found[arm.name] == pytest.approx([1.0, np.mean(text), np.mean(recall)])


def test_the_documents_print_what_the_studies_found():
    ratio = (STUDIES / "2026-11_paper_ratio" / "README.md").read_text()
    spaces = (STUDIES.parent / "search_spaces" / "README.md").read_text()
    prose = (STUDIES / "2026-11_paper_prose" / "README.md").read_text()
    for name in ("quick", "standard", "thorough"):
        (found,) = [line.split(" | ") for line in prose.splitlines() if line.startswith(f"| `{name}` |")]
        (told,) = [line.split(" | ") for line in spaces.splitlines() if line.startswith(f"| `{name}` |")]
        assert told[:3] == found[:3]
        assert f"{found[3]}, the mean of both {found[4].split(', n =')[0]}" in told[3]
    (old,) = [line.split(" | ") for line in ratio.splitlines() if line.startswith("| `thorough` |")]
    assert f"judged by `recall`: {old[4].split(', n =')[0]} at most" in " ".join(spaces.split())
    (composite,) = [line.split(" | ")[1] for line in ratio.splitlines() if line.startswith("| composite | ")]
    (paper,) = [line.split(" | ")[1] for line in ratio.splitlines() if line.startswith("| the paper's 350M | 0.84")]
    readme = " ".join((STUDIES.parent / "README.md").read_text().split())
    ours, theirs = (cell.split(", n =")[0] for cell in (composite, paper))
    assert f"together with tau {ours}; the paper's own 350M models do with {theirs}" in readme
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in prose.splitlines() if " | " in line}
    _, minutes, best, *_ = rows["half: loss on all text"]
    said = f"two seeds of {float(minutes) / 2:.0f} GPU-minutes each, does with {best.split(', n =')[0]}"
    assert f"{said} (`2026-11_paper_prose`; it is `proxy: standard`, chosen among" in readme
    told = " ".join(spaces.split())
    assert f"`standard` has {rows['half: the score'][2].split(', n =')[0]}" in told
    early = rows["state 16: loss on all text after 0.25 of the tokens"][2].split(" ")[0]
    assert f"(off `thorough` {early})" in told


def test_the_proxies_by_name_are_settings_that_were_measured():
    grown = run_of(STUDIES / "2026-11_paper_prose").GROWN
    measured = {"standard": "half", "thorough": "state 16"}
    for name in ("quick", "standard", "thorough"):
        file = read_study(f"name: s\nratio: 1:3\nproxy: {name}\ndata: {{bpe: 4096}}\n", "s.yaml")
        theirs = grown.study(measured.get(name, "half"))
        assert file.proxy.with_changes(name="s") == theirs.proxy.with_changes(name="s")
        tokens = theirs.budget.tokens // (1 if name in measured else 2)
        assert file.budget == replace(theirs.budget, tokens=tokens)


@pytest.mark.parametrize(("study", "name"), [("prose", "state 64"), ("sizes", "width 32"), ("sweep", "words")])
def test_a_study_of_settings_grows_by_seeds(study, name):
    """Trials are told apart by what they are, not by their place or number."""
    grown = run_of(STUDIES / f"2026-11_paper_{study}").GROWN
    trials = read_trials(STUDIES / f"2026-11_paper_{study}" / "trials.parquet")
    found = grown.of_settings(trials)
    more = [trial.with_changes(seed=1) for trial in found[name]]
    sorted_anew = grown.of_settings([*reversed(trials), *more])
    for other, these in found.items():
        assert {t.number for t in sorted_anew[other]} == {t.number for t in these}
        assert len(sorted_anew[other]) == len(these) * (2 if other == name else 1)
    first = next(iter(found))
    assert len(grown.of_settings(trials[1:])[first]) == len(found[first]) - 1


def test_a_study_begun_from_part_of_its_trials_keeps_their_numbers(tmp_path):
    """`begin` and `assemble` without a training: what is there comes out as it was, what lacks is left open."""
    grown = run_of(STUDIES / "2026-11_paper_sizes").GROWN
    every = read_trials(STUDIES / "2026-11_paper_sizes" / "trials.parquet")
    kept = [trial for trial in every if trial.number % 3]
    found = grown.of_settings(kept)
    parts = {}
    for name, trials in found.items():
        parts[name] = tmp_path / f"{name}.parquet"
        write_part(trials, table_setting(grown.study(name), "0" * 64), parts[name])
    shutil.copy(STUDIES / "2026-11_paper_sizes" / "study.yaml", tmp_path)
    grown._replace(folder=tmp_path).assemble(parts)
    assert read_trials(tmp_path / "trials.parquet") == kept
