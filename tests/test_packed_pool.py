"""Several candidates in one process: the same outcomes as alone, and one that fails leaves its neighbours alone."""

from __future__ import annotations

import time
from typing import Any

from hybrid_nas.architecture import Architecture, Attention, Block, Mamba2, SwiGLU
from hybrid_nas.budget import Budget
from hybrid_nas.evaluate import evaluate
from hybrid_nas.packed_pool import PackedPool
from hybrid_nas.workers import Died, Done, Event, Report

BUDGET = Budget(tokens=2048, batch=4, rungs=(0.5,), validation_tokens=512, learning_rate=1e-3)
MODELS = [
    Architecture(32, 256, (Block(mixer, SwiGLU(48)),) * 2)
    for mixer in (Attention(heads=2, kv_heads=1, head_dim=16), Mamba2(d_ssm=64, head_dim=32, d_state=16))
]


def job(model: Architecture, budget: Budget = BUDGET, **limits: float) -> dict[str, Any]:
    return {
        "architecture": model.to_dict(),
        "context": 64,
        "budget": budget.to_dict(),
        "data": {},
        "seed": 0,
        **limits,
    }


def run(pool: PackedPool, jobs: dict[int, dict[str, Any]], goes_on: dict[int, bool]) -> list[Event]:
    """All events until every job has ended."""
    for number, what in jobs.items():
        pool.submit(number, what)
    seen: list[Event] = []
    deadline = time.monotonic() + 120
    while sum(isinstance(event, Done | Died) for event in seen) < len(jobs):
        assert time.monotonic() < deadline, seen
        for event in pool.events(0.2):
            seen.append(event)
            if isinstance(event, Report) and event.validation:
                pool.answer(event.job, goes_on.get(event.job, True))
    return seen


def test_outcomes_are_those_of_one_at_a_time_and_failures_stay_apart() -> None:
    narrow = Architecture(32, 64, MODELS[1].blocks)  # fewer tokens than bytes have values
    jobs = {0: job(MODELS[0]), 1: job(MODELS[1]), 2: job(narrow), 3: job(MODELS[0])}
    jobs[4] = {**job(MODELS[1]), "data": {"path": "/no/such/file"}}
    with PackedPool(["cpu"], each=5) as pool:
        assert pool.free == 5
        events = run(pool, jobs, {3: False})
        assert pool.free == 5
    outcomes = {event.job: event.outcome for event in events if isinstance(event, Done)}
    assert {number: outcome["state"] for number, outcome in outcomes.items()} == {
        0: "complete", 1: "complete", 2: "failed", 3: "stopped", 4: "failed",
    }  # fmt: skip
    assert "vocab" in outcomes[2]["failure"]
    assert "/no/such/file" in outcomes[4]["failure"]
    for number in (0, 1):
        alone = evaluate(MODELS[number], 64, BUDGET, {}, 0, lambda _: True, "cpu")
        assert outcomes[number]["values"] == alone.values
    assert {event.job for event in events if isinstance(event, Report) and event.validation} >= {0, 1, 3}


def test_a_job_over_its_time_fails_alone() -> None:
    long = Budget(**{**vars(BUDGET), "tokens": 5_000_000, "rungs": ()})
    with PackedPool(["cpu"], each=2) as pool:
        events = run(pool, {0: job(MODELS[0], long, time_limit=2.0), 1: job(MODELS[1])}, {})
    outcomes = {event.job: event.outcome for event in events if isinstance(event, Done)}
    assert outcomes[0]["state"] == "failed"
    assert "OverTime" in outcomes[0]["failure"]
    assert outcomes[1]["state"] == "complete"


def test_where_the_process_ends_its_jobs_die_and_the_next_has_a_new_one() -> None:
    long = Budget(**{**vars(BUDGET), "tokens": 50_000_000, "rungs": ()})
    with PackedPool(["cpu"], each=2) as pool:
        pool.submit(0, job(MODELS[0], long))
        pool.submit(1, job(MODELS[1], long))
        pool.workers["cpu"].process.kill()
        died: list[Event] = []
        while len(died) < 2:
            died += pool.events(0.5)
        assert {event.job for event in died if isinstance(event, Died)} == {0, 1}
        assert "SIGKILL" in str(died[0])
        done = run(pool, {2: job(MODELS[0])}, {})
        assert isinstance(done[-1], Done)
