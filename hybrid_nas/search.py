"""The loop of a search: ask for designs, train their proxies on workers, stop what is dominated, repeat the front.

The search ends with replicates: members of the front are trained at further seeds, the same for all, until each has
as many as the budget asks for, so that the front carries intervals and the noise of the study is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from hybrid_nas.budget import Budget
from hybrid_nas.front import Front
from hybrid_nas.proposal import Proposal
from hybrid_nas.stopping import Stopping, seen_of
from hybrid_nas.study import Asked, Study
from hybrid_nas.trial import Point, Trial
from hybrid_nas.workers import Died, Done, Moved, Note, Pool, Report

TRIES = 2
TICK_S = 0.2


class Watch(Protocol):
    """Who looks on: the terminal, a script, or nobody."""

    def begun(self, task: Task) -> None: ...
    def moved(self, task: Task, tokens: int, loss: float) -> None: ...
    def ended(self, trial: Trial) -> None: ...
    def said(self, text: str) -> None: ...
    def tick(self) -> None: ...


@dataclass
class Task:
    """One training in flight. `asked` is None for a replicate, which repeats `replicate_of` at another seed."""

    number: int
    proposal: Proposal
    seed: int
    asked: Asked | None = None
    replicate_of: int | None = None
    tries: int = 1
    tokens: int = 0
    loss: float | None = None
    rungs: dict[int, float] = field(default_factory=dict)


class Loop:
    """One run of a search on a pool of workers. `run` returns when all is done or `stop` says so."""

    def __init__(self, study: Study, pool: Pool, watch: Watch, stop: Callable[[], bool]) -> None:
        self.study = study
        self.file = study.file
        self.pool = pool
        self.watch = watch
        self.stop = stop
        self.running: dict[int, Task] = {}
        self.ready: list[Task] = []
        self.held: list[Task] = []
        self.trained = {
            (trial.proxy.id, trial.seed): trial
            for trial in study.all_trials()
            if trial.state == "complete" and trial.shared_with is None
        }
        self.stopping = Stopping.of(study.all_trials(), self.file)
        self.next_job = 0

    def run(self) -> bool:
        """True if the search is complete, False if it was stopped."""
        if self.study.waiting:
            self.watch.said(f"{self.study.waiting} trials were cut off by the end of an earlier run; they start again")
        while not self.stop():
            self._start()
            if not self.running:
                return True
            for event in self.pool.events(TICK_S):
                match event:
                    case Report():
                        self._report(self.running[event.job], event)
                    case Done():
                        self._finish(self.running.pop(event.job), event.outcome)
                    case Moved():
                        self.watch.said(f"trial {self.running[event.job].number}: {event.reason}")
                    case Note():
                        self.watch.said(event.text)
                    case Died():
                        self._died(self.running.pop(event.job), event)
            self.watch.tick()
        return False

    def _start(self) -> None:
        """Fill the free workers."""
        while self.pool.free and not self.stop():
            task = self._next()
            if task is None:
                return
            known = self.trained.get((task.proposal.proxy.id, task.seed))
            if known is not None:
                self._share(task, known)
            elif any(self._same_training(task, other) for other in self.running.values()):
                self.held.append(task)
            else:
                job, self.next_job = self.next_job, self.next_job + 1
                self.running[job] = task
                task.rungs.clear()
                self.watch.begun(task)
                self.pool.submit(
                    job,
                    {
                        "architecture": task.proposal.proxy.to_dict(),
                        "context": self.file.proxy.context,
                        "budget": self._budget(task).to_dict(),
                        "data": self.file.data or {},
                        "seed": task.seed,
                        "time_limit": self.file.search.time_limit,
                        "memory": self.file.search.memory,
                    },
                )

    def _next(self) -> Task | None:
        if self.ready:
            return self.ready.pop(0)
        search = self.file.search
        if self.study.waiting or (self.study.begun < search.trials and not self.study.exhausted()):
            asked = self.study.ask()
            return Task(asked.number, asked.proposal, search.seed, asked=asked)
        if not self.running and not self.held:
            self.ready = list(self._replicates())
            return self.ready.pop(0) if self.ready else None
        return None

    def _replicates(self) -> Iterator[Task]:
        """The trainings that members of the front still lack."""
        trials = self.study.all_trials()
        if not any(trial.state == "complete" for trial in trials):
            return
        have = {(trial.key, trial.seed) for trial in trials if trial.state != "stopped"}
        keys = {member.key for member in Front.of(trials, self.file.objectives).members}
        number = self.study.next_number
        for trial in self.study.trials.values():
            if trial.state != "complete" or trial.key not in keys:
                continue
            for seed in range(self.file.search.seed + 1, self.file.search.seed + 1 + self.file.budget.replicates):
                if (trial.key, seed) not in have:
                    proposal = Proposal(trial.design, trial.proxy, trial.target, trial.cost)
                    yield Task(number, proposal, seed, replicate_of=trial.number)
                    number += 1

    def _report(self, task: Task, report: Report) -> None:
        task.tokens, task.loss = report.tokens, report.loss
        self.watch.moved(task, report.tokens, report.loss)
        if report.validation:
            task.rungs[report.tokens] = report.loss
            go_on = True
            scores = {"loss": report.loss, "recall": report.recall}
            seen = seen_of(task.proposal.key, task.proposal.cost, scores, self.file.objectives)
            if task.asked is not None and seen is not None:
                go_on = self.stopping.goes_on(self._rung(task, report), seen)
            self.pool.answer(report.job, go_on)

    def _budget(self, task: Task) -> Budget:
        return self.file.budget.of(task.proposal.proxy, self.file.proxy.context)

    def _rung(self, task: Task, report: Report) -> int:
        return self._budget(task).rung(report.tokens, self.file.proxy.context)

    def _finish(self, task: Task, outcome: dict[str, Any]) -> None:
        self._tell(
            task,
            Trial(
                number=task.number,
                state=outcome["state"],
                design=task.proposal.design,
                proxy=task.proposal.proxy,
                target=task.proposal.target,
                cost=task.proposal.cost,
                budget=self._budget(task),
                seed=task.seed,
                values=outcome["values"] if outcome["state"] == "complete" else {},
                curve=tuple(Point(**point) for point in outcome["curve"]),
                failure=outcome["failure"],
                replicate_of=task.replicate_of,
                implementations=outcome["implementations"],
                device=outcome["device"],
                seconds=outcome["seconds"],
                tokens=outcome["tokens"],
            ),
        )

    def _share(self, task: Task, known: Trial) -> None:
        """One model at the proxy scale: one training. Only the costs differ."""
        self._tell(
            task,
            known.with_changes(
                number=task.number,
                design=task.proposal.design,
                target=task.proposal.target,
                cost=task.proposal.cost,
                shared_with=known.number,
                replicate_of=task.replicate_of,
                seconds=0.0,
                tokens=0,
            ),
        )

    def _died(self, task: Task, event: Died) -> None:
        """A worker is gone: once more, since machines have accidents; the second time it is the candidate's."""
        if not event.final and task.tries < TRIES:
            task.tries += 1
            self.watch.said(f"trial {task.number}: {event.reason}; it starts again")
            self.ready.insert(0, task)
            return
        failure = event.reason
        if not event.final:
            failure += f", {task.tries} times; out of memory is the usual cause"
        self._finish(
            task,
            {
                "state": "failed",
                "values": {},
                "curve": [],
                "failure": failure,
                "implementations": {},
                "device": "unknown",
                "seconds": 0.0,
                "tokens": task.tokens,
            },
        )

    def _tell(self, task: Task, trial: Trial) -> None:
        if task.asked is None:
            self.study.add_replicate(trial)
        else:
            self.study.tell(task.asked, trial)
        self.stopping.trained(trial, self.file.objectives)
        if trial.state == "complete" and trial.shared_with is None:
            self.trained[trial.proxy.id, trial.seed] = trial
        self.ready += [other for other in self.held if self._same_training(task, other)]
        self.held = [other for other in self.held if not self._same_training(task, other)]
        self.watch.ended(trial)

    @staticmethod
    def _same_training(one: Task, other: Task) -> bool:
        return (one.proposal.proxy.id, one.seed) == (other.proposal.proxy.id, other.seed)


def seconds_left(
    done: list[Trial], to_do: int, replicates: int, workers: int, in_flight: list[tuple[float, bool]]
) -> float | None:
    """Time left by the mean of the finished trainings, for replicates by that of the complete ones, since they are not
    stopped. `in_flight`: the seconds that each running one has had, and whether it is a replicate."""
    took = [trial.seconds for trial in done if trial.seconds > 0]
    if not took:
        return None
    whole = [trial.seconds for trial in done if trial.seconds > 0 and trial.state == "complete"] or took
    mean, full = sum(took) / len(took), sum(whole) / len(whole)
    rest = to_do * mean + replicates * full
    rest += sum(max(0.0, (full if replicate else mean) - seconds) for seconds, replicate in in_flight)
    return rest / max(1, workers)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
