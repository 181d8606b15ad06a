"""What a search says of the time it will still take, and of what failed."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from installed import TINY
from rich.console import Console
from synthetic import bare_trial

from hybrid_nas.progress import JsonLines, Lines, LiveTable, Progress
from hybrid_nas.speed import PREDICTED, Speed
from hybrid_nas.study_file import read_study


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
