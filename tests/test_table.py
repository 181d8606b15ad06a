"""Tables that grow over slices, and how their parts join."""

import json
import multiprocessing
import queue
import re
import time
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from hybrid_nas.budget import Budget
from hybrid_nas.cli import app, main
from hybrid_nas.data import Corpus, Text, open_corpus
from hybrid_nas.drawable import check
from hybrid_nas.evaluate import DeviceLost, evaluate
from hybrid_nas.study_file import read_study
from hybrid_nas.table import Machine, Setting, _Worker, fill, missing
from hybrid_nas.table_file import identity, merged, of_spaces, proposals, read_part, setting_of, write_part
from hybrid_nas.trial import Trial

SPACE = """
name: small
ratio: [1:1, 1:3, 0:1]
placement: [front, end]
d_state: 16
proxy: {width: 32, params: 60000, ffn_hidden: 64, context: 32, tokens: 1024, batch: 4, validation_tokens: 512,
        rungs: [0.5], recall_symbols: 8}
"""


def study(changes=()):
    return read_study(SPACE, "small.yaml", tuple(changes))


def trained(file, seeds, deadline=None, have=(), **order):
    jobs = missing(proposals([file], None), seeds, have, **order)
    found = []
    problems = fill(jobs, Setting(file.proxy.context, file.budget, file.data), Machine("cpu"), deadline, found.append)
    assert problems == []
    return found


def test_jobs_are_what_is_missing_design_by_design_or_seed_by_seed():
    file = study()
    every = proposals([file], None)
    jobs = missing(every, 2, [])
    assert [[seed for _, seed in job.seeds] for job in jobs] == [[0, 1]] * len(every)
    assert sorted(number for job in jobs for number, _ in job.seeds) == list(range(2 * len(every)))
    by_seed = missing(every, 2, [], seed_by_seed=True)
    assert [job.seeds[0][1] for job in by_seed] == [0] * len(every) + [1] * len(every)
    assert {(n, job.proposal.key, s) for job in jobs for n, s in job.seeds} == {
        (n, job.proposal.key, s) for job in by_seed for n, s in job.seeds
    }


def test_more_designs_are_those_and_others():
    every = proposals([study()], None)
    few, more = (proposals([study()], n) for n in (2, 4))
    assert [p.key for p in more[:2]] == [p.key for p in few]
    assert {p.key for p in more} < {p.key for p in every}
    # A model that two spaces have is trained once.
    assert len(proposals([study(), study()], None)) == len(every)
    with pytest.raises(ValueError, match="has another proxy, target or data than"):
        proposals([study(), study(["proxy.width=64"])], None)


@pytest.mark.slow
def test_trials_are_those_of_evaluate_and_the_second_slice_repeats_nothing():
    file = study()
    first = trained(file, 1)
    assert [trial.state for trial in first] == ["complete"] * len(proposals([file], None))
    alone = evaluate(first[1].proxy, 32, file.budget, None, 0, lambda progress: True, "cpu")
    assert alone.values == first[1].values
    assert alone.curve == first[1].curve
    assert missing(proposals([file], None), 1, first) == []
    assert {trial.seed for trial in missing_seeds(file, first)} == {1}


def missing_seeds(file, have):
    return trained(file, 2, have=have)


def test_past_the_deadline_nothing_begins_and_nothing_is_recorded():
    assert trained(study(), 1, deadline=time.time() - 1) == []


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    file = study()
    setting = setting_of(file, "text")
    trials = trained(file, 2)
    write_part(trials[:4], setting, folder / "a.parquet")
    write_part(trials[3:], setting, folder / "b.parquet")
    return folder, trials, setting


def test_parts_join_without_repeating_a_design_at_a_seed(parts):
    folder, trials, setting = parts
    for order in (("a", "b"), ("b", "a"), ("b", "a", "b")):
        joined, its = merged([folder / f"{name}.parquet" for name in order])
        assert its == setting
        assert {(t.key, t.seed): t.values for t in joined} == {(t.key, t.seed): t.values for t in trials}
        assert [t.number for t in joined] == list(range(len(trials)))
        assert [t.seed for t in joined] == sorted(t.seed for t in joined)


def test_a_complete_trial_takes_the_place_of_a_failed_one(parts, tmp_path):
    _, trials, setting = parts
    broken = trials[0].with_changes(state="failed", values={}, failure="ran out of memory")
    for name, part in (("broken", [broken]), ("whole", [trials[0]])):
        write_part(part, setting, tmp_path / f"{name}.parquet")
    for order in (("broken", "whole"), ("whole", "broken")):
        (joined,), _ = merged([tmp_path / f"{name}.parquet" for name in order])
        assert joined.values == trials[0].values


def test_parts_of_another_setting_are_refused_with_what_differs(parts, tmp_path):
    folder, trials, setting = parts
    other = json.loads(json.dumps(setting))
    other["budget"]["tokens"] = 99
    assert identity(other) != identity(setting)
    write_part(trials[:1], other, tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"budget\.tokens is 99, not 1024"):
        merged([folder / "a.parquet", tmp_path / "other.parquet"])


def test_of_spaces_keeps_the_models_of_a_space_at_the_setting_of_the_table(parts):
    _, trials, setting = parts
    only = read_study("name: only\nratio: [0:1]\nd_state: 16\n", "only.yaml")
    kept = of_spaces(trials, [only], {**setting, "target": study().target.to_dict()})
    assert {set(t.proxy.layout).pop() for t in kept} == {"M"}
    assert [t.seed for t in kept] == [0, 1]


class Ended(BaseException):
    """In the place of the process's end."""


@pytest.mark.parametrize("alone", [True, False])
def test_a_process_that_loses_its_device_says_where_and_ends(monkeypatch, alone):
    """One that trained nothing beside it knows which training did it, and records it: it is not met again."""
    file, heard = study(), queue.Queue()
    heard.close = heard.join_thread = lambda: None

    def lost(*args, **kwargs):
        raise DeviceLost("H100 is lost to this process: an illegal memory access")

    def end(code):
        raise Ended

    monkeypatch.setattr("hybrid_nas.evaluate.evaluate", lost)
    monkeypatch.setattr("hybrid_nas.table.os._exit", end)
    jobs = missing(proposals([file], None), 1, [])
    setting = Setting(file.proxy.context, file.budget, file.data)
    following = multiprocessing.get_context("spawn").Value("i", 0)
    with pytest.raises(Ended):
        _Worker(jobs, setting, "cpu", None, following, heard, alone).run()
    told = [heard.get() for _ in range(heard.qsize())]
    assert [type(message) for message in told] == ([Trial, str] if alone else [str])
    if alone:
        assert told[0].state == "failed"
        assert told[0].failure == "H100 is lost to this process: an illegal memory access"
    beside = "" if alone else ", or beside it"
    assert told[-1].startswith(f"a process ended at {jobs[0].proposal.proxy.layout}, seed 0{beside}: H100 is lost")


def test_the_command_ends_with_an_error_where_processes_did(monkeypatch, tmp_path):
    (tmp_path / "small.yaml").write_text(SPACE)
    monkeypatch.setattr("hybrid_nas.table.fill", lambda *a: ["processes ended with code -6; what they were"])
    command = ["table", str(tmp_path / "small.yaml"), "--seeds", "1", "--out", str(tmp_path / "part.parquet"), "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "processes ended with code -6" in done.output
    assert json.loads(done.stdout)["missing"] > 0


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda", "--device cuda: PyTorch finds no CUDA devices here; cpu trains on the processor, and auto"),
        ("cuda:1", "--device cuda:1: PyTorch finds no CUDA devices here"),
        ("gpu", "must be auto (a GPU where there is one), cpu, cuda or cuda:0, found 'gpu'; an NVIDIA GPU is cuda"),
        ("cuda:", "found 'cuda:'"),
        ("cuda:x", "cpu, cuda or cuda:0, found 'cuda:x'"),
        ("tpu", "cpu, cuda or cuda:0, found 'tpu'"),
    ],
)
def test_a_device_that_is_not_here_is_refused_first(tmp_path, monkeypatch, capsys, device, told):
    (tmp_path / "small.yaml").write_text(SPACE)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    command = ["hybrid-nas", "table", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "a" / "part.parquet")]
    monkeypatch.setattr("sys.argv", [*command, "--device", device])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert told in error
    assert "Traceback" not in error
    assert not (tmp_path / "a").exists()


def test_a_device_is_asked_for_by_its_number(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for device in ("auto", "cpu", "cuda", "cuda:0"):
        Machine(device).check()
    with pytest.raises(ValueError, match="--device cuda:1: PyTorch finds 1 CUDA device here"):
        Machine("cuda:1").check()


def test_commands(tmp_path):
    (tmp_path / "small.yaml").write_text(SPACE)
    part, whole = tmp_path / "part.parquet", tmp_path / "whole.parquet"
    run = CliRunner().invoke
    command = ["table", str(tmp_path / "small.yaml"), "--seeds", "1", "--designs", "2", "--out", str(part), "--json"]
    done = run(app, [*command, "--device", "cpu", "--time-limit", "5min"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["trained"] == 2
    again = run(app, [*command, "--device", "cpu"])
    assert json.loads(again.stdout)["trained"] == json.loads(again.stdout)["missing"] == 0
    joined = run(app, ["merge", str(part), str(part), "--out", str(whole), "--json"])
    assert json.loads(joined.stdout)["trials"] == 2
    assert len(read_part(whole)[0]) == 2
    with pytest.raises(
        ValueError, match="--time-limit: time: a time like 90s, 10min or 2h must stand here, found soon"
    ):
        run(app, [*command, "--time-limit", "soon"], catch_exceptions=False)
    with pytest.raises(ValueError, match="trained under another setting"):
        run(app, [*command, "--set", "proxy.tokens=2048"], catch_exceptions=False)


NEVER_DRAWN = [
    ("tasks: [mqar(pairs=40)]", "mqar(pairs=40) cannot be drawn at proxy.context 64: mqar: needs at least 160 tokens"),
    (
        "probes: [needle(times=0.001)]",
        "needle(times=0.001) cannot be drawn at proxy.context 64: needle: needs",
    ),
    ("probes: [passkey(times=0.1)]", "passkey(times=0.1) cannot be drawn at proxy.context 64: passkey: needs"),
    ("vocab: 500", "has 700 different tokens, so proxy.vocab must be at least that, found 500"),
]


@pytest.mark.parametrize("command", ["search", "table"])
@pytest.mark.parametrize(("line", "told"), NEVER_DRAWN)
def test_what_no_candidate_could_be_trained_on_is_refused_first(tmp_path, command, line, told):
    """A task or probe without room in the context, and ids above the vocabulary: a line, and nothing is left behind."""
    rng = np.random.default_rng(0)
    ids = {side: rng.integers(0, 700, n).astype(np.uint16) for side, n in (("train", 5000), ("held_out", 900))}
    np.savez_compressed(tmp_path / "ids.npz", vocab=700, bytes_per_token=2.5, **ids)
    vocab = "" if "vocab" in line else "vocab: 700, "
    text = SPACE.replace("proxy: {", f"data: ids.npz\nproxy: {{{vocab}{line}, ").replace("context: 32", "context: 64")
    (tmp_path / "small.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        CliRunner().invoke(
            app, [command, str(tmp_path / "small.yaml"), "--out", str(tmp_path / "made")], catch_exceptions=False
        )
    assert command == "table" or "small.yaml:7: " in str(refused.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ids.npz", "small.yaml"]


def test_tasks_that_can_be_drawn_are_let_through():
    text = Text("some", np.arange(5000, dtype=np.uint8), np.arange(900, dtype=np.uint8), "some")
    budget = Budget(batch=8, tasks=("mqar", "needle(times=2)"), probes=("passkey", "beyond(times=2)"))
    scale = replace(study().proxy, context=256)
    check(text, scale, budget)
    with pytest.raises(ValueError, match=r"tasks: needle.* the held-out text of some has 900 tokens, one sequence"):
        check(text, replace(scale, context=600), budget)
    few = Text("few", text.train % 100, text.held_out % 100, "few", vocab=100)
    with pytest.raises(ValueError, match=r"proxy: its symbols go up to 1\d\d, so proxy\.vocab must be more, found 100"):
        check(few, replace(scale, vocab=100), Budget(batch=8))


def test_token_ids_are_read_as_they_are_and_wrong_ones_refused(tmp_path):
    rng = np.random.default_rng(0)
    ids = {side: rng.integers(0, 700, n).astype(np.uint16) for side, n in (("train", 5000), ("held_out", 900))}
    path = tmp_path / "ids.npz"
    np.savez_compressed(path, vocab=700, bytes_per_token=2.5, **ids)
    text = open_corpus(Corpus(str(path)))
    assert (text.vocab, text.bytes_per_token) == (700, 2.5)
    assert np.array_equal(text.train, ids["train"])
    starts = np.random.default_rng([3, 1]).integers(0, 5000 - 16 + 1, 2)
    assert np.array_equal(text.batch(3, 1, 2, 16), np.stack([ids["train"][s : s + 16] for s in starts]))
    np.savez_compressed(tmp_path / "low.npz", vocab=600, bytes_per_token=2.5, **ids)
    with pytest.raises(ValueError, match=r"unsigned integers below vocab 600, found shape \(5000,\), uint16, largest"):
        open_corpus(Corpus(str(tmp_path / "low.npz")))
    np.savez_compressed(tmp_path / "part.npz", vocab=700, **ids)
    with pytest.raises(ValueError, match="vocab and bytes_per_token must be in it"):
        open_corpus(Corpus(str(tmp_path / "part.npz")))
    file = study()
    outcome = evaluate(proposals([file], 1)[0].proxy, 32, file.budget, {"path": str(path)}, 0, lambda p: True, "cpu")
    assert "has 700 different tokens, so proxy.vocab must be at least that, found 256" in outcome.failure


def test_the_designs_of_a_table_are_trained_at_another_scale(tmp_path, monkeypatch):
    """By hand: the designs of the part at the other width, whichever of its seeds held them."""
    asked = []
    monkeypatch.setattr("hybrid_nas.table.fill", lambda jobs, *rest: asked.extend(jobs) or [])
    (tmp_path / "small.yaml").write_text(SPACE)
    file = study()
    some = proposals([file], None)[:3]
    trials = [
        Trial(n, "complete", p.design, p.proxy, p.target, p.cost, file.budget, seed, {"loss": 1.0})
        for n, (p, seed) in enumerate((p, seed) for seed in (0, 1) for p in some)
    ]
    write_part(trials, setting_of(file, "a" * 64), tmp_path / "part.parquet")
    command = ["table", str(tmp_path / "small.yaml"), "--out", str(tmp_path / "wide.parquet"), "--seeds", "2"]
    command += ["--like", str(tmp_path / "part.parquet"), "--set", "proxy.width=64", "--set", "proxy.params=240k"]
    wide = study(["proxy.width=64", "proxy.params=240k"])
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert [job.proposal.target for job in asked] == [p.target for p in some]
    assert [job.proposal.proxy for job in asked] == [p.design.at(wide.proxy) for p in some]
    with pytest.raises(ValueError, match="its designs are trained, so give one space and leave --designs out"):
        CliRunner().invoke(app, [*command, "--designs", "2"], catch_exceptions=False)
    with pytest.raises(ValueError, match="it holds no design that small can train at this scale"):
        CliRunner().invoke(app, [*command, "--set", "constraints.params=1000"], catch_exceptions=False)
