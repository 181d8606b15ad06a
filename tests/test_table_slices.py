"""Slices of a table: one command at a time on a file, how one stops, and what it says of itself."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hybrid_nas.cli import app, main
from hybrid_nas.held_file import held
from hybrid_nas.study_file import read_study
from hybrid_nas.table import Machine, Setting, Unfinished, _Worker, fill, missing
from hybrid_nas.table_file import proposals, read_part, setting_of, write_part
from hybrid_nas.trial import Trial

SPACE = """
name: small
ratio: [1:1, 1:3, 0:1]
placement: [front, end]
d_state: 16
proxy: {width: 32, params: 60000, ffn_hidden: 64, context: 32, tokens: 1024, batch: 4, validation_tokens: 512,
        rungs: [0.5], recall_symbols: 8, aggregate: z-score}
"""
Refused = Callable[..., str]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SPACE)
    return tmp_path / "small.yaml"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    def command(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["hybrid-nas", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return command


def made(n: int, first: int = 0) -> list[Trial]:
    file = read_study(SPACE, "small.yaml")
    every = proposals([file], None)
    rng = np.random.default_rng(first)
    return [
        Trial(i, "complete", p.design, p.proxy, p.target, p.cost, file.budget, seed, {"loss": rng.uniform(1, 3)})
        for i in range(first, first + n)
        for p, seed in [(every[i % len(every)], i // len(every))]
    ]


def write(path: Path, trials: list[Trial], *changes: str, text: str = "a" * 64) -> Path:
    write_part(trials, setting_of(read_study(SPACE, "small.yaml", changes), text), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_is_silent_and_a_killed_command_holds_nobody_up(
    space: Path, tmp_path: Path, refused: Refused, processes: int
) -> None:
    out = tmp_path / "part.parquet"
    arguments = ["table", str(space), "--out", str(out), "--seeds", "500", "--processes", str(processes)]
    program = [sys.executable, "-c", "from hybrid_nas.cli import main; main()", *arguments, "--device", "cpu"]

    def running(until: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if until in line:
                return process
        pytest.fail(f"no {until!r}")

    for until in ("trainings to do", "seed 0"):  # while the processes start, and while they train
        process = running(until)
        assert f"{out}: another command is at work on this table" in refused(*arguments)
        assert "another command is at work on this table" in refused(
            "merge", write(tmp_path / "x", made(2)), "--out", out
        )
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in said
        *_, last = said.strip().splitlines()
        assert last == f"stopped; nothing finished is lost, and the same command continues {out}"
        assert all(re.match(r"\d+/2500 ", line) for line in said.strip().splitlines()[:-1])
        assert not (tmp_path / ".part.parquet.lock").exists()
    before = len(read_part(out)[0])
    assert before >= 1
    process = running(f"1/{2500 - before} ")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)  # its workers end by themselves
    assert (tmp_path / ".part.parquet.lock").exists()
    process = running("trainings to do")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert "stopped; nothing finished is lost" in said
    assert len(read_part(out)[0]) >= before


def test_a_lock_is_one_commands_and_goes_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    for _ in range(2):
        with held(lock, "busy"):
            with pytest.raises(ValueError, match="busy"), held(lock, "busy"):
                pytest.fail("held twice")
            assert lock.exists()
        assert not lock.exists()
    lock.write_text("left by a killed process")
    with held(lock, "busy"):
        pass


def test_a_training_that_is_cut_says_how_far_it_came() -> None:
    file = read_study(SPACE, "small.yaml", ("proxy.tokens=400M",))
    heard: queue.Queue[object] = queue.Queue()
    following = multiprocessing.get_context("spawn").Value("i", 0)
    jobs = missing(proposals([file], None), 1, [])
    setting = Setting(file.proxy.context, file.budget, file.data)
    began = time.time()
    _Worker(jobs, setting, "cpu", began + 1.5, following, heard).run()  # type: ignore[arg-type]
    told = heard.get_nowait()
    assert heard.empty()
    assert isinstance(told, Unfinished)
    assert 1e-7 < told.share < 0.01  # a step is 3.2e-7, and 0.01 would be 31,250 of them
    assert told.seconds <= time.time() - began


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (
            [(0.02, 80.0), (0.25, 90.0)],
            "the furthest had done 25% of its steps in 1 min 30 s, so one takes about 6 min 0 s and its scoring;",
        ),
        ([], "none finished, and none did a step within the 1 min 30 s; give a longer --time-limit"),
    ],
)
def test_a_slice_shorter_than_a_training_says_so(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: list[tuple[float, float]], told: str
) -> None:
    def short(*arguments: object) -> list[str]:
        for one in cut:
            arguments[-1](Unfinished(*one))  # type: ignore[operator]
        return []

    monkeypatch.setattr("hybrid_nas.table.fill", short)
    out = tmp_path / "new" / "part.parquet"
    done = CliRunner().invoke(app, ["table", str(space), "--out", str(out), "--time-limit", "90s"])
    assert done.exit_code == 0, done.output
    assert told in " ".join(done.output.split())
    assert [path.name for path in out.parent.iterdir()] == ["part.parquet"]
    without = CliRunner().invoke(app, ["table", str(space), "--out", str(out)])
    assert "none finished" not in without.output


def test_another_setting_is_refused_with_what_differs(space: Path, tmp_path: Path, refused: Refused) -> None:
    wide = write(tmp_path / "wide.parquet", made(2), "proxy.ffn_hidden=96")
    kept = wide.read_bytes()
    for arguments in (("--out", wide), ("--out", tmp_path / "new" / "part.parquet", "--have", wide)):
        told = refused("table", space, *arguments)
        assert "trained under another setting than this: proxy.ffn_hidden is 96, not 64; change that back" in told
    assert not (tmp_path / "new").exists()
    assert wide.read_bytes() == kept
    other = write(tmp_path / "other.parquet", made(2))
    assert "the text is aaaaaaaaaaaa, not " in refused("table", space, "--out", other)


def test_paths_are_refused_in_words_and_nothing_is_left(space: Path, tmp_path: Path, refused: Refused) -> None:
    part = write(tmp_path / "part.parquet", made(2))
    before = sorted(tmp_path.iterdir())
    for told, *arguments in (
        (
            "nope: no such file; `hybrid-nas table --out FILE` writes one",
            "table",
            space,
            "--like",
            "nope",
            "--out",
            "x",
        ),
        ("nope: no such file", "table", space, "--have", "nope", "--out", tmp_path / "x.parquet"),
        ("nope: no such file", "merge", part, "nope", "--out", tmp_path / "new" / "x.parquet"),
        (f"{tmp_path}/trials.parquet: no such file", "merge", tmp_path, "--out", tmp_path / "x.parquet"),
        ("a table is a Parquet file, so its name must end in .parquet", "merge", part, "--out", tmp_path / "x.csv"),
        ("so its name must end in .parquet", "table", space, "--out", tmp_path / "x.csv"),
        ("a folder is there, and it must be a file", "table", space, "--out", tmp_path),
        (f"{space} is a file, and a folder must stand there", "merge", part, "--out", space / "x.parquet"),
    ):
        error = refused(*arguments)
        assert told in error
        assert "Errno" not in error
        assert sorted(tmp_path.iterdir()) == before


def test_merge_takes_a_folder_and_makes_one(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    write(tmp_path / "study" / "trials.parquet", made(3))
    out = tmp_path / "new" / "whole.parquet"
    done = CliRunner().invoke(app, ["merge", str(tmp_path / "study"), "--out", str(out), "--json"])
    assert json.loads(done.stdout)["trials"] == 3
    assert len(read_part(out)[0]) == 3


def test_a_slice_makes_the_score_that_merge_makes(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the losses alone here: of each seed their z-scores, by hand. Two trials have one number, and both stay."""
    trials = [trial.with_changes(number=0) for trial in made(5)]

    def filled(*arguments: Any) -> list[str]:
        _, _, _, _, heard, _ = arguments
        for trial in trials:
            heard(trial.with_changes(values={**trial.values, "score": 0.5}))
        return []

    monkeypatch.setattr("hybrid_nas.table.fill", filled)
    out = tmp_path / "part.parquet"
    done = CliRunner().invoke(app, ["table", str(space), "--out", str(out), "--seeds", "1"])
    assert done.exit_code == 0, done.output
    assert "score 0.5" not in done.output
    assert f"score: by z-score among the designs that {out} holds" in " ".join(done.output.split())
    losses = np.array([trial.values["loss"] for trial in trials])
    found = [trial.values["score"] for trial in read_part(out)[0]]
    assert found == pytest.approx((losses.mean() - losses) / losses.std())


def test_ctrl_c_reaches_no_process_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes while they start waits for the end of that, and is not lost."""
    started: list[set[signal.Signals]] = []

    class Process:
        exitcode = 0

        def __init__(self, **given: object) -> None:
            pass

        def start(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            started.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

        def kill(self) -> None:
            started.clear()

        join = kill

    file = read_study(SPACE, "small.yaml")
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(type(context), "Process", Process)
    jobs = missing(proposals([file], None), 1, [])
    with pytest.raises(KeyboardInterrupt):
        fill(jobs, Setting(file.proxy.context, file.budget, file.data), Machine("cpu", 2), None, lambda trial: None)
    assert len(started) == 2
    assert all(signal.SIGINT in mask for mask in started)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
