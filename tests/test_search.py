"""Whole searches through the installed command: what they leave, and what survives being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hybrid_nas.cost import cost
from hybrid_nas.front import Front
from hybrid_nas.objective import DEFAULT_OBJECTIVES
from hybrid_nas.run_folder import Run
from hybrid_nas.trial import Trial

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., "subprocess.Popen[str]"]


def search_trials(path: Path) -> list[Trial]:
    return [trial for trial in Run.of(path).trials() if trial.replicate_of is None]


def wait_for(ready: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def finished(path: Path) -> int:
    try:
        return len(Run.of(path).trials())
    except ValueError:
        return 0


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the workers, which are children of the driver."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == process.pid and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def test_a_search_leaves_everything(nas: Command, tiny: Path, tmp_path: Path) -> None:
    done = nas("search", tiny, "--out", "run", "--workers", "2")
    run = tmp_path / "run"
    names = {path.name for path in run.iterdir()}
    assert {
        "study.yaml", "study.db", "trials.parquet", "front.json", "recipe.md", "recipe.json", "report.html",
        "environment.json",
    } <= names  # fmt: skip
    trials = Run.of(run).trials()
    search = [trial for trial in trials if trial.replicate_of is None]
    assert [trial.number for trial in search] == list(range(5))
    assert len({trial.key for trial in search}) == 5
    assert "0 refused" not in done.stdout
    front = Front.of(trials, DEFAULT_OBJECTIVES)
    assert json.loads((run / "front.json").read_text()) == json.loads(json.dumps(front.to_dict()))
    for member in front.members:
        assert len(member.seeds) == 2  # the search's seed and one replicate
    layouts = {trial.layout for trial in search}
    assert "A" * 16 in layouts  # the dear end of the cache axis comes first
    assert "M" * 13 in layouts  # and the cheap one
    printed = json.loads(nas("front", "run", "--json").stdout)
    assert printed == json.loads((run / "front.json").read_text())
    assert nas("recipe", "run").stdout == (run / "recipe.md").read_text()
    before = (run / "report.html").stat().st_mtime_ns
    nas("report", "run")
    assert (run / "report.html").stat().st_mtime_ns > before

    again = nas("search", tiny, "--out", "run", "--workers", "2")
    assert "5 trials" in again.stdout
    assert Run.of(run).trials() == trials  # nothing was trained twice

    grown = nas("search", tiny, "--out", "run", "--workers", "2", "--trials", "7", "--json")
    events = [json.loads(line) for line in grown.stdout.splitlines()]
    assert [event["number"] for event in events if event["event"] == "trial"] in ([5, 6], [6, 5])
    assert search_trials(run)[:5] == search


def test_kill_9_of_the_driver_loses_only_what_was_in_flight(
    nas: Command, start: Start, tiny: Path, tmp_path: Path
) -> None:
    """The resumed search has the designs and values of an unbroken one, in its order; its workers died with it."""
    arguments = ("search", tiny, "--workers", "1", "--trials", "6")
    nas(*arguments, "--out", "whole")
    process = start(*arguments, "--out", "broken")
    broken = tmp_path / "broken"
    wait_for(lambda: finished(broken) >= 2)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    before = search_trials(broken)
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").is_file() and _alive(pid) for pid in workers), 20.0)
    resumed = nas(*arguments, "--out", "broken")
    assert f"{len(before)} trials and" in resumed.stdout or f"{len(before) + 1} trials and" in resumed.stdout
    after = search_trials(broken)
    assert after[: len(before)] == before
    whole = search_trials(tmp_path / "whole")
    assert [(t.number, t.design, t.state, t.values) for t in after] == [
        (t.number, t.design, t.state, t.values) for t in whole
    ]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_kill_9_of_a_worker_starts_its_trial_again(start: Start, tiny: Path, tmp_path: Path) -> None:
    process = start("search", tiny, "--out", "run", "--workers", "1", "--trials", "4", "--set", "proxy.tokens=30k")
    wait_for(lambda: finished(tmp_path / "run") >= 1)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "SIGKILL; it starts again" in output
    trials = search_trials(tmp_path / "run")
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert not any(trial.state == "failed" for trial in trials)


def test_ctrl_c_stops_within_five_seconds(nas: Command, start: Start, tiny: Path, tmp_path: Path) -> None:
    process = start("search", tiny, "--out", "run", "--workers", "2", "--trials", "10", "--set", "proxy.tokens=20k")
    wait_for(lambda: finished(tmp_path / "run") >= 1)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - begin < 5.0
    assert process.returncode == 130
    assert "the same command continues" in output
    assert (tmp_path / "run" / "report.html").is_file()
    assert nas("front", "run").stdout


def test_two_searches_do_not_share_a_folder(nas: Command, start: Start, tiny: Path, tmp_path: Path) -> None:
    process = start("search", tiny, "--out", "run", "--set", "proxy.tokens=200k")
    wait_for(lambda: (tmp_path / "run" / ".lock").is_file())
    second = nas("search", tiny, "--out", "run", "--set", "proxy.tokens=200k", check=2)
    assert "another command is at work" in second.stderr
    other = nas("search", tiny, "--out", "run", "--set", "proxy.tokens=200k", "--seed", "3", check=2)
    assert "holds another study (search.seed was 0, is 3" in other.stderr
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def test_designs_that_coincide_at_the_proxy_share_one_training(nas: Command, tiny: Path, tmp_path: Path) -> None:
    """1/8 and 1/4 of 32 heads differ at the target; of the proxy's 2 heads both are one."""
    nas("search", tiny, "--out", "run", "--workers", "2", "--trials", "2",
        "--set", "ratio=1:0", "--set", "d_state=", "--set", "kv_heads=[1/8, 1/4]", check=2)  # fmt: skip
    tiny.write_text(tiny.read_text().replace("d_state: [8, 16]\n", "kv_heads: [1/8, 1/4]\n").replace(
        "ratio: [1:0, 1:1, 1:3, 0:1]\nplacement: [front, end, [0.5]]", "ratio: 1:0"))  # fmt: skip
    nas("search", tiny, "--out", "run", "--workers", "2")
    first, second = search_trials(tmp_path / "run")
    assert second.shared_with == first.number
    assert second.values == first.values
    assert second.cost.cache_bytes != first.cost.cache_bytes
    assert first.proxy == second.proxy


def test_grid_takes_every_design_once(nas: Command, tiny: Path, tmp_path: Path) -> None:
    nas("search", tiny, "--out", "run", "--trials", "50", "--set", "search.sampler=grid", "--set", "ratio=[1:1, 0:1]",
        "--set", "proxy.tokens=128", "--set", "search.dominators=0")  # fmt: skip
    trials = search_trials(tmp_path / "run")
    assert (
        len(trials) == len({trial.key for trial in trials}) == 2 * 2 + 2 + 2
    )  # placements x states, one list of positions x states, and 0:1's states


def test_a_failing_study_goes_on_and_says_why(nas: Command, tiny: Path, tmp_path: Path) -> None:
    """A second does not suffice for 20 million tokens: every candidate fails, none ends the study."""
    changes = ("--budget", "20M", "--set", "search.time_limit=1s")
    done = nas("search", tiny, "--out", "run", "--trials", "3", *changes, check=1)
    trials = search_trials(tmp_path / "run")
    assert [trial.state for trial in trials] == ["failed"] * 3
    assert all("took longer than its time limit" in (trial.failure or "") for trial in trials)
    assert all(trial.values == {} for trial in trials)
    assert "took longer than its time limit" in done.stdout


def test_strings_that_no_context_holds_are_refused_first(nas: Command, tiny: Path, tmp_path: Path) -> None:
    """Strings of 64 bytes do not fit a context of 32, whatever the candidate."""
    done = nas("search", tiny, "--out", "run", "--set", "proxy.recall_symbols=64", check=2)
    assert "needs sequences of at least 65 tokens, found 33" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sampler", ["random", "nsga2", "gp"])
def test_samplers(sampler: str, nas: Command, tiny: Path, tmp_path: Path) -> None:
    nas("search", tiny, "--out", "run", "--trials", "9", "--set", f"search.sampler={sampler}",
        "--set", "proxy.tokens=64", "--set", "search.dominators=0", "--set", "proxy.replicates=0")  # fmt: skip
    trials = search_trials(tmp_path / "run")
    assert len({trial.key for trial in trials}) == 9


def test_equal_compute_and_both_families(nas: Command, tmp_path: Path) -> None:
    """Each design trains on the tokens of its own cost; recipe and report name the mode; resuming repeats nothing."""
    path = tmp_path / "compute.yaml"
    path.write_text(
        "family: hybrid\nratio: [1:0, 0:1, 1:5]\n"
        "proxy: {flops: 2e9, batch: 1, context: 32, recall_share: 0, validation_tokens: 128, replicates: 1}\n"
        "search: {trials: 4, workers: 2}\n"
    )
    nas("search", path, "--out", "run")
    trials = Run.of(tmp_path / "run").trials()
    assert {"A", "H", "M"} <= {letter for trial in trials for letter in trial.layout}
    assert any(trial.replicate_of is not None for trial in trials)
    for trial in trials:
        if trial.state == "complete":
            flops = trial.tokens * cost(trial.proxy, 32).train_flops_per_token
            assert flops == pytest.approx(2e9, rel=0.05)  # whole steps of 32 tokens of some 500
    assert len({trial.budget.tokens for trial in trials}) > 1
    for name in ("recipe.md", "report.html"):
        assert "Equal compute: every design was trained for 2e+09 FLOPs" in (tmp_path / "run" / name).read_text()
    before = (tmp_path / "run" / "trials.parquet").read_bytes()
    nas("search", path, "--out", "run")
    assert Run.of(tmp_path / "run").trials() == trials
    assert before == (tmp_path / "run" / "trials.parquet").read_bytes()
