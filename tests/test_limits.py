"""What one training may take: time by a clock that nobody sets, memory, and what happens to one that takes more."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from installed import TINY, environment
from servers import descendants, named, wait_for

from hybrid_nas import limits
from hybrid_nas.architecture import Architecture, Block, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.limits import Stopwatch
from hybrid_nas.processes import ProcessPool
from hybrid_nas.run_folder import Run
from hybrid_nas.study_file import read_study
from hybrid_nas.workers import Died, Done, Event, Report
from hybrid_nas.yaml_file import FileError

Start = Callable[..., "subprocess.Popen[str]"]
MIB = 2**20


def test_the_stopwatch_counts_training_and_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    watch = Stopwatch(limit=10.0, silence=30.0)

    def after(seconds: float) -> str | None:
        now[0] += seconds
        return watch.verdict

    assert after(4) is None
    watch.wait()  # at a rung, with 4 of 10 seconds spent
    assert after(1000) is None
    watch.sign()
    assert after(5) is None
    assert after(2) == "took longer than its time limit of 10.0 s"
    free = Stopwatch(silence=30.0)
    now[0] += 29
    free.sign()
    now[0] += 29
    assert free.verdict is None
    now[0] += 2
    assert free.verdict == "made no step for 30.0 s"
    assert not free.over_limit


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("90s", 90), ("10min", 600), ("1.5 h", 5400), ("2d", 172800)])
def test_times_are_read(text: str, value: float) -> None:
    search = read_study(f"{TINY}  time_limit: {text}\n  memory: 2GiB\n  gpus: 0.25\n", "tiny.yaml").search
    assert (search.time_limit, search.memory, search.gpus) == (value, 2**31, 0.25)
    file = read_study(f"{TINY}  time_limit: {text}\n", "tiny.yaml")
    assert file.identity == read_study(TINY, "tiny.yaml").identity  # it changes no result
    assert read_study(repr_yaml(file.to_dict()), "again.yaml") == file


def repr_yaml(data: dict[str, Any]) -> str:
    import io

    from ruamel.yaml import YAML

    text = io.StringIO()
    YAML().dump(data, text)
    return text.getvalue()


@pytest.mark.parametrize(
    "line", ["time_limit: soon", "time_limit: 0", "time_limit: [1, 2]", "memory: 1MiB", "gpus: -1"]
)
def test_times_that_are_none(line: str) -> None:
    with pytest.raises(FileError, match=rf"tiny.yaml:17: search: {line.split(':')[0]}.* must "):
        read_study(f"{TINY}  {line}\n", "tiny.yaml")


def outcomes(pool: ProcessPool, jobs: list[dict[str, Any]]) -> list[Event]:
    """How jobs end, one after another on one worker."""
    found: list[Event] = []
    for number, job in enumerate(jobs):
        pool.submit(number, job)
        while len(found) <= number:
            for event in pool.events(0.2):
                if isinstance(event, Report):
                    pool.answer(event.job, True) if event.validation else None
                else:
                    found.append(event)
    return found


def job(hidden: int, **more: Any) -> dict[str, Any]:
    """A training of one layer whose weights take 6 KiB times `hidden`, four times over with gradient and moments."""
    architecture = Architecture(512, 256, (Block(None, SwiGLU(hidden)),))
    budget = Budget(tokens=64, batch=2, validation_tokens=64, rungs=(), recall_symbols=4)
    fixed = {"architecture": architecture.to_dict(), "context": 32, "budget": budget.to_dict(), "data": {}, "seed": 0}
    return {**fixed, **more}


def test_a_trial_that_eats_memory_fails_alone(tmp_path: Path) -> None:
    """3 GiB of weights in a worker that has 1: the candidate fails and says why, the worker goes on."""
    with ProcessPool(1, log=tmp_path / "log") as pool:
        greedy, modest = outcomes(pool, [job(2**19, memory=1024 * MIB), job(64, memory=1024 * MIB)])
        first = pool.workers[0].process.pid
        assert int(Path(f"/proc/{first}/oom_score_adj").read_text()) == 500  # the kernel takes it before the driver
    assert isinstance(greedy, Done)
    assert isinstance(modest, Done)
    assert greedy.outcome["state"] == "failed"
    assert greedy.outcome["failure"].startswith("ran out of memory on cpu, of which its worker has 1 GiB: ")
    assert modest.outcome["state"] == "complete"


def test_a_trial_over_its_time_is_ended_and_not_tried_again(tmp_path: Path) -> None:
    with ProcessPool(1, log=tmp_path / "log") as pool:
        over, fine = outcomes(pool, [job(64, time_limit=0.01), job(64)])
    assert over == Died(0, "took longer than its time limit of 0.0 s", final=True)
    assert isinstance(fine, Done)


@pytest.mark.slow
def test_a_trial_that_hangs_is_ended_and_the_search_goes_on(start: Start, tiny: Path, tmp_path: Path) -> None:
    long = ("--set", "proxy.tokens=20k", "--set", "proxy.replicates=0", "--set", "search.time_limit=30s")
    process = start("search", tiny, "--out", "run", "--workers", "1", "--trials", "3", *long)
    wait_for(lambda: (tmp_path / "run" / "trials.parquet").is_file(), "a trial")
    os.kill(named(descendants(process.pid), "hybrid_nas.processes")[0], signal.SIGSTOP)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    trials = Run.of(tmp_path / "run").trials()
    assert sorted(trial.state for trial in trials) == ["complete", "complete", "failed"]
    assert [t.failure for t in trials if t.failure] == ["took longer than its time limit of 30.0 s"]


JUMPY = """\
import itertools, time
real, jumps = time.time, itertools.cycle([0.0, -86400.0, 3600.0, -10.0, 1e6])
time.time = lambda: real() + next(jumps)
time.time_ns = lambda: int(time.time() * 1e9)
"""


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    """The clock of the driver and of its workers goes forward and back by up to eleven days at every look."""
    from installed import COMMAND

    (tmp_path / "jumpy").mkdir()
    (tmp_path / "jumpy" / "sitecustomize.py").write_text(JUMPY)
    told = []
    for out, more in (("steady", {}), ("jumps", {"PYTHONPATH": str(tmp_path / "jumpy")})):
        begin = time.monotonic()
        command = [COMMAND, "search", str(tiny), "--out", out, "--workers", "1", "--trials", "3"]
        limit = ["--set", "search.time_limit=5min"]
        done = subprocess.run(
            [*command, *limit], cwd=tmp_path, env={**environment(), **more}, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        took = time.monotonic() - begin
        trials = Run.of(tmp_path / out).trials()
        assert all(0 < trial.seconds < took for trial in trials)
        told.append([(trial.number, trial.state, trial.values, trial.curve) for trial in trials])
    assert told[0] == told[1]
