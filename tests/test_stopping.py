"""When a trial stops at a rung: by the answers that the loop gives to workers whose losses are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hybrid_nas.census import Census
from hybrid_nas.search import Loop
from hybrid_nas.storage import open_storage
from hybrid_nas.study import Study
from hybrid_nas.study_file import read_study
from hybrid_nas.trial import Trial
from hybrid_nas.workers import Done, Event, Report

SPACE = """\
ratio: [1:0, 1:1, 1:3, 1:5, 1:12, 0:1]
d_state: 16
search: {sampler: grid, workers: 1, trials: 6, dominators: 2, margin: 0.1}
proxy: {replicates: 0}
"""


class ScriptedPool:
    """One worker, whose trainings report the given loss at one rung and end with it unless told to stop."""

    def __init__(self, losses: dict[str, float]) -> None:
        self.losses = losses
        self.answers: dict[str, bool] = {}
        self.job: tuple[int, str] | None = None

    @property
    def free(self) -> int:
        return self.job is None

    def submit(self, number: int, job: dict[str, Any]) -> None:
        letters = "".join(
            "A" if block["mixer"]["kind"] == "attention" else "M" for block in job["architecture"]["blocks"]
        )
        self.job = number, letters

    def answer(self, number: int, go_on: bool) -> None:
        assert self.job is not None
        self.answers[self.job[1]] = go_on

    def events(self, timeout: float) -> Iterator[Event]:
        assert self.job is not None
        number, letters = self.job
        loss = self.losses[letters]
        yield Report(number, 1000, loss, True)
        self.job = None
        done = self.answers[letters]
        yield Done(
            number,
            {
                "state": "complete" if done else "stopped",
                "values": {"loss": loss, "recall": 0.0} if done else {},
                "curve": [{"tokens": 1000, "loss": loss, "validation": True}],
                "failure": None,
                "implementations": {},
                "device": "cpu",
                "seconds": 1.0,
                "tokens": 2000 if done else 1000,
            },
        )


class Nobody:
    def begun(self, task: object) -> None: ...
    def moved(self, task: object, tokens: int, loss: float) -> None: ...
    def ended(self, trial: Trial) -> None: ...
    def said(self, text: str) -> None: ...
    def tick(self) -> None: ...


def answers(tmp_path: Path, losses: list[float], **changes: object) -> list[bool]:
    """Whether each design, from the largest cache to the smallest, was let go on. They are trained in the opposite
    order, cheapest first."""
    settings = tuple(f"search.{key}={value}" for key, value in changes.items())
    study = read_study(SPACE, "space.yaml", settings)
    census = Census.of(study)
    dear_first = sorted(census.proposals.values(), key=lambda proposal: -proposal.cost.cache_bytes)
    letters = [proposal.proxy.layout for proposal in dear_first]
    pool = ScriptedPool(dict(zip(letters, losses, strict=True)))
    census = Census({p.key: p for p in reversed(dear_first)}, census.refused, census.looked_at, census.complete)
    Loop(Study(study, census, open_storage(f"sqlite:///{tmp_path}/study.db")), pool, Nobody(), lambda: False).run()  # type: ignore[arg-type]
    return [pool.answers[layout] for layout in letters]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        # Two cheaper ones (the last two) are better by more than the margin: stopped.
        ([2.0, 2.5, 2.0, 2.0, 2.3, 2.3], [True, False, True, True, True, True]),
        # Better, but not by more than the margin of 0.1: goes on.
        ([2.0, 2.35, 2.3, 2.3, 2.3, 2.3], [True] * 6),
        # Only one is better beyond the margin: goes on.
        ([2.5, 2.5, 2.5, 2.5, 2.5, 2.3], [True] * 6),
        # The cheapest is never dominated in efficiency, however bad.
        ([2.0, 2.0, 2.0, 2.0, 2.0, 9.0], [True] * 6),
    ],
)
def test_a_trial_stops_where_enough_cheaper_ones_are_better_beyond_the_margin(
    tmp_path: Path, losses: list[float], expected: list[bool]
) -> None:
    assert answers(tmp_path, losses) == expected


def test_no_dominators_no_stop(tmp_path: Path) -> None:
    assert answers(tmp_path, [9.0, 9.0, 9.0, 9.0, 2.0, 2.0], dominators=0) == [True] * 6


def test_no_margin_stops_at_any_difference(tmp_path: Path) -> None:
    assert answers(tmp_path, [2.31, 2.31, 2.31, 2.31, 2.3, 2.3], margin=0) == [False] * 4 + [True] * 2
