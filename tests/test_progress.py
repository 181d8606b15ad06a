"""What a search says of the time it will still take, and of what failed."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from installed import TINY
from rich.console import Console
from synthetic import bare_trial

from hybrid_nas import progress
from hybrid_nas.progress import JsonLines, Lines, LiveTable, Progress
from hybrid_nas.proposal import Proposal
from hybrid_nas.search import Task
from hybrid_nas.speed import PREDICTED, Speed
from hybrid_nas.study_file import StudyFile, read_study


def test_time_left_counts_the_replicates_that_the_front_still_needs() -> None:
    """Two workers, three trials of 10 s: two are on the front, so two replicates each, 4 x 10 s, are to come."""
    file = read_study(TINY, "tiny.yaml", ("proxy.replicates=2", "search.trials=4"))
    trials = [bare_trial(0, 1.0, 30), bare_trial(1, 2.0, 10), bare_trial(2, 3.0, 40)]
    trials = [trial.with_changes(seconds=10.0) for trial in trials]
    stopped = bare_trial(3, 3.0, 50, state="stopped").with_changes(seconds=2.0)
    progress = Progress(file, trials, workers=2)
    assert progress.replicates_to_do() == 8  # a front of four designs, while the search may still find them
    assert progress.summary()["seconds_left"] == pytest.approx((10 + 8 * 10) / 2)
    progress.ended(stopped)
    assert progress.replicates_to_do() == 4
    assert progress.summary()["seconds_left"] == pytest.approx(4 * 10 / 2)
    again = bare_trial(4, 1.1, 30, proxy=0, target=0, seed=1, replicate_of=0)
    progress.ended(again.with_changes(seconds=10.0))
    assert progress.summary()["seconds_left"] == pytest.approx(3 * 10 / 2)


def test_without_a_finished_training_nothing_is_said() -> None:
    file = read_study(TINY, "tiny.yaml")
    assert Progress(file, [], workers=1).summary()["seconds_left"] is None


def test_time_left_does_not_count_trials_that_the_space_has_no_designs_for() -> None:
    """24 trials of a space of 3: after the third, none is to come."""
    file = read_study(TINY, "tiny.yaml", ("proxy.replicates=0", "search.trials=24"))
    progress = Progress(file, [], workers=1)
    progress.planned = 3
    for number in range(3):
        progress.ended(bare_trial(number, 1.0 + number, 30).with_changes(seconds=10.0))
    summary = progress.summary()
    assert (summary["trials"], summary["done"], summary["seconds_left"]) == (3, 3, 0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    return made


def first_task(file: StudyFile) -> Task:
    return Task(0, Proposal.of(next(iter(file.space.enumerate())), file), 0)


def test_the_pace_of_the_first_steps_tells_how_long_a_training_takes(clock: Clock) -> None:
    """After the first step, which pays for the start, 3.5 s a step: 1,099 of them take 64 min 6 s."""
    file = read_study("name: s\nratio: [1:3]\nproxy: quick\n", "s.yaml")
    shown = Progress(file, [], workers=2)
    task = first_task(file)
    shown.begun(task)
    for second, step in ((14.0, 1), (17.5, 2), (21.0, 3), (24.5, 4)):
        clock.now = 100 + second
        shown.moved(task, step * 8192, 5.0)
    (told,) = shown.noted
    assert told == (
        "one training takes about 1 h 4 min, 2 trainings at a time: 1,099 steps at the pace of the first 24,576 "
        "tokens, and beside them 262,144 tokens are scored at each rung and at the end"
    )
    clock.now = 200
    shown.tick()
    assert len(shown.noted) == 1


def test_only_a_training_of_more_than_a_minute_is_worth_a_word(clock: Clock) -> None:
    file = read_study(TINY, "tiny.yaml")
    shown = Progress(file, [], workers=1)
    task = first_task(file)
    shown.begun(task)
    for second, step in ((1, 1), (7, 2), (13, 8), (19, 16)):
        clock.now = 100 + second
        shown.moved(task, step * 64, 5.0)
        shown.tick()
    assert [line.partition(":")[0] for line in shown.noted] == [
        "one training takes about 1 min 36 s, 1 training at a time"
    ]
    quick = Progress(file, [], workers=1)
    clock.now = 100
    quick.begun(task)
    for second, step in ((1, 1), (7, 9)):
        clock.now = 100 + second
        quick.moved(task, step * 64, 5.0)
        quick.tick()
    assert quick.noted == []


def test_a_training_of_which_nothing_is_heard(clock: Clock) -> None:
    """Of one step, say: most of its time is scoring. Once a training has ended, its time is what is told."""
    file = read_study("name: s\nratio: [1:3]\nproxy: {preset: quick, tokens: 8192}\n", "s.yaml")
    shown = Progress(file, [], workers=1)
    shown.begun(first_task(file))
    for clock.now in (119.0, 121.0, 150.0):
        shown.tick()
    (told,) = shown.noted
    assert told == (
        "21.0 s into trial 0, 0 of its 8,192 tokens are trained on: 1 step, and 262,144 tokens that are scored at each "
        "rung and at the end"
    )
    again = Progress(file, [bare_trial(0, 1.0, 30).with_changes(seconds=10.0)], workers=1)
    again.begun(first_task(file))
    clock.now = 300.0
    again.tick()
    assert again.noted == []


def test_lines_and_events_show_the_efficiencies_that_are_searched_for(capsys: pytest.CaptureFixture[str]) -> None:
    file = read_study(TINY, "tiny.yaml", ("objectives=[loss, decode_tokens_per_s]",))
    trial = bare_trial(0, 1.0, 30)
    trial = trial.with_changes(cost=replace(trial.cost, speed=Speed(PREDICTED, "h100", 3056.2, 1.0, 1.0, 1.0)))
    screen = io.StringIO()
    Lines(file, [], 1, Console(file=screen, width=200)).ended(trial)
    assert "decoding speed 3.06 ktokens/s  loss 1.0000" in screen.getvalue()
    assert "cache" not in screen.getvalue()
    JsonLines(file, [], 1).ended(trial)
    event = json.loads(capsys.readouterr().out)
    assert event["decode_tokens_per_s"] == 3056.2
    assert event["cache_bytes"] == trial.cost.cache_bytes
    table = Console(file=(screen := io.StringIO()), width=200)
    table.print(LiveTable(file, [trial], 1, table)._picture())
    assert "decoding speed" in screen.getvalue()
    assert "3.06 ktokens/s" in screen.getvalue()
