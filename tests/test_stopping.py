"""When a trial stops at a rung: by the answers that the loop gives to workers whose losses are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import linregress, norm
from synthetic import grid, trial

from hybrid_nas.census import Census
from hybrid_nas.objective import Objective
from hybrid_nas.search import Loop
from hybrid_nas.stopping import Seen, Stopping, seen_of
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


def seen(key: int, efficiency: float, *quality: float) -> Seen:
    return Seen(str(key), (efficiency,), quality)


def test_rank_lets_the_best_third_of_non_dominated_layers_go_on() -> None:
    stopping = Stopping("rank", reduction=3)
    front = [seen(i, i, 3 - i * 0.1) for i in range(4)]
    assert all(stopping.goes_on(0, one) for one in front)  # a front of four: none stands in a better layer
    assert not stopping.goes_on(0, seen(9, 4, 3.5))  # four of five are better: the best third is less than two
    assert stopping.goes_on(0, seen(10, -1, 9.0))  # the cheapest of all is on the front, however bad
    assert stopping.goes_on(1, seen(11, 9, 9.0))  # nobody was at that rung before


def test_loss_alone_forgets_what_is_cheap() -> None:
    stopping = Stopping("loss", reduction=3)
    for i in range(6):
        stopping.goes_on(0, seen(i, 5.0, 2.0 + i / 10))
    assert not stopping.goes_on(0, seen(10, -1, 9.0))
    assert stopping.goes_on(0, seen(11, 9, 1.0))


def told(noise: float, count: int = 20) -> Stopping:
    """A study in which the end is the value at the rung less one, give or take `noise`; efficiencies 0 to count - 1."""
    rng = np.random.default_rng(0)
    stopping = Stopping("front")
    for i in range(count):
        at_rung = 3 - 0.05 * i
        stopping.saw(0, seen(i, float(i), at_rung))
        stopping.ended(seen(i, float(i), at_rung - 1 + rng.normal(0, noise)))
    return stopping


def test_front_stops_what_is_dominated_beyond_the_noise_alone() -> None:
    """The newcomer costs a little more than number 3 and is worse by 0.1 at the rung."""
    newcomer = seen(99, 3.5, 2.95)
    assert not told(0.01).goes_on(0, newcomer)
    assert told(0.3).goes_on(0, newcomer)  # a difference of 0.1 says nothing there
    assert told(0.01).goes_on(0, seen(99, 3.5, 2.75))
    assert told(0.01).goes_on(0, seen(99, -1.0, 9.0))  # nothing cheaper was seen
    assert told(0.01, count=5).goes_on(0, newcomer)  # too few have ended to foretell an end


def test_the_probability_of_the_front_is_that_of_a_normal_end() -> None:
    """One rival that is certain: the probability that the end is below its value."""
    stopping = told(0.05, count=30)
    rival = Seen("rival", (-5.0,), (1.5,))
    stopping.rungs[0]["rival"] = Seen("rival", (-5.0,), (3.0,))
    stopping.ends = {key: end for key, end in stopping.ends.items() if end.efficiency[0] < 0} | {
        key: Seen(key, (99.0,), end.quality) for key, end in stopping.ends.items()
    }
    stopping.rungs[0] = {key: Seen(key, (99.0,), had.quality) for key, had in stopping.rungs[0].items()}
    stopping.rungs[0]["rival"], stopping.ends["rival"] = rival, rival
    pairs = [(had.quality[0], stopping.ends[key].quality[0]) for key, had in stopping.rungs[0].items()]
    x, y = np.array(pairs).T
    fit = linregress(x, y)
    residual = np.sqrt(((y - fit.intercept - fit.slope * x) ** 2).sum() / (len(x) - 2))
    at = 2.5
    spread = residual * np.sqrt(1 + 1 / len(x) + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum())
    expected = norm.cdf((1.5 - fit.intercept - fit.slope * at) / spread)
    found = stopping.probability(0, Seen("new", (0.0,), (at,)))
    assert 0.02 < expected < 0.98
    assert found == pytest.approx(expected, abs=0.08)  # 256 draws


def test_what_was_stopped_is_foretold_from_the_last_rung_that_tells() -> None:
    stopping = told(0.01)
    stopping.saw(0, seen(50, 3.0, 2.5))
    ((value, variance),) = stopping.foretold()["50"]
    assert value == pytest.approx(1.5, abs=0.03)
    assert 0 < variance < 0.02**2
    assert set(stopping.foretold()) == {"50"}


def test_recall_is_read_where_it_is_an_objective_and_missing_scores_stop_nothing() -> None:
    row = trial(0, grid()[0], 2.0, 0.5)
    three = [Objective.named(name) for name in ("loss", "recall", "cache_bytes")]
    found = seen_of(row.key, row.cost, {"loss": 2.0, "recall": 0.5}, three)
    assert found == Seen(row.key, (float(row.cost.cache_bytes),), (2.0, -0.5))
    assert seen_of(row.key, row.cost, {"loss": 2.0, "recall": None}, three) is None
