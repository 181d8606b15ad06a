"""A table: many designs, each trained at several seeds under one setting, grown over many slices of time.

Processes take designs from one list and train all missing seeds of one before the next; on a GPU each runs several
trainings on streams and captures a design's step once for all of its seeds. A training that the time does not suffice
for is not recorded: the next slice trains it.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from typing import TYPE_CHECKING, Any, NoReturn

from hybrid_nas.budget import Budget
from hybrid_nas.proposal import Proposal
from hybrid_nas.trial import Trial

if TYPE_CHECKING:
    from hybrid_nas.evaluate import Outcome, Progress

GRACE_S = 20.0
"""How long after the time limit a process may take to end before it is stopped."""


@dataclass(frozen=True)
class Job:
    """One design and the (number of the trial, seed) pairs to train it at."""

    proposal: Proposal
    seeds: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Setting:
    """What all trainings have in common: `context` of the proxy, `budget`, and `data` as `Corpus.to_dict` gives it."""

    context: int
    budget: Budget
    data: dict[str, Any] | None


@dataclass(frozen=True)
class Machine:
    """`processes`, each of one thread a training and `at_once` trainings; `device` as `evaluate` takes it. Where there
    are several GPUs the processes take turns at them."""

    device: str = "auto"
    processes: int = 1
    at_once: int = 1

    def check(self) -> None:
        """ValueError where this machine has no such device."""
        import torch

        if self.device in ("auto", "cpu"):
            return
        named = re.fullmatch(r"cuda(?::(\d{1,3}))?", self.device)
        if named is None:
            near = "; an NVIDIA GPU is cuda" if self.device.lower().startswith(("gpu", "nvidia", "cuda")) else ""
            raise ValueError(
                f"--device must be auto (a GPU where there is one), cpu, cuda or cuda:0, found {self.device!r}{near}"
            )
        count = torch.cuda.device_count()
        if int(named[1] or 0) >= count:
            raise ValueError(
                f"--device {self.device}: PyTorch finds {count or 'no'} CUDA device{'s' * (count != 1)} here; cpu "
                "trains on the processor, and auto, the default, on a GPU where there is one"
            )

    def visible(self, index: int) -> str | None:
        """The GPU that process `index` is to see; None where there is no choice."""
        import torch

        if self.device not in ("auto", "cuda"):
            return None
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = named.split(",") if named is not None else [str(i) for i in range(torch.cuda.device_count())]
        return gpus[index % len(gpus)] if len(gpus) > 1 else None


@dataclass(frozen=True)
class Unfinished:
    """A training that the time did not suffice for: the `share` of its steps that it did in `seconds`."""

    share: float
    seconds: float


Message = Trial | Unfinished | str | None
"""From a process: what a training gave, what went wrong with the process, or None at its end."""


class TimeUp(BaseException):
    """Ends a training that the time does not suffice for; no failure of the candidate, so not an Exception."""


def missing(
    proposals: Sequence[Proposal], seeds: int, have: Sequence[Trial], *, seed_by_seed: bool = False
) -> list[Job]:
    """What `have` lacks of every proposal at seeds 0 to `seeds` - 1. Trials are numbered seed by seed. A job is all
    seeds of a design or, `seed_by_seed`, one of them, so that what is cut short is whole in fewer seeds."""
    known = {(trial.key, trial.seed) for trial in have}
    jobs = []
    for together in [(seed,) for seed in range(seeds)] if seed_by_seed else [tuple(range(seeds))]:
        for place, proposal in enumerate(proposals):
            wanted = [(seed * len(proposals) + place, seed) for seed in together if (proposal.key, seed) not in known]
            if wanted:
                jobs.append(Job(proposal, tuple(wanted)))
    return jobs


def fill(
    jobs: Sequence[Job],
    setting: Setting,
    machine: Machine,
    deadline: float | None,
    heard: Callable[[Trial], None],
    cut: Callable[[Unfinished], None] = lambda unfinished: None,
) -> list[str]:
    """Train `jobs` until all are done or the clock (`time.time`) reads `deadline`; `heard` gets every trial as it ends,
    and `cut` how far those came that it ended. Returns what went wrong with whole processes, a line each."""
    context = multiprocessing.get_context("spawn")
    results: Queue[Message] = context.Queue()
    following = context.Value("i", 0)
    children = [
        context.Process(
            target=_child,
            args=(list(jobs), setting, machine, machine.visible(i), deadline, following, results),
            daemon=True,
        )
        for i in range(max(1, min(machine.processes, len(jobs))))
    ]
    with _without_interrupts():
        for child in children:
            child.start()
    try:
        return _listen(children, results, deadline, heard, cut)
    finally:
        for child in children:
            child.kill()
            child.join()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started here never hears of Ctrl-C, which is for this process to act on, and does so afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(
    children: Sequence[Any],
    results: Queue[Message],
    deadline: float | None,
    heard: Callable[[Trial], None],
    cut: Callable[[Unfinished], None],
) -> list[str]:
    import queue

    ended, lost = 0, list[str]()
    while ended < len(children):
        try:
            message = results.get(timeout=0.5)
        except queue.Empty:
            if deadline is not None and time.time() > deadline + GRACE_S:
                return [f"{len(children) - ended} of {len(children)} processes did not end in time and were stopped"]
            if all(child.exitcode is not None for child in children) and results.empty():
                codes = ", ".join(str(child.exitcode) for child in children if child.exitcode)
                return lost or (
                    [f"processes ended with code {codes}; what they were training is not recorded"] if codes else []
                )
            continue
        if message is None:
            ended += 1
        elif isinstance(message, str):
            lost.append(message)
        elif isinstance(message, Unfinished):
            cut(message)
        else:
            heard(message)
    return lost


def _child(
    jobs: list[Job],
    setting: Setting,
    machine: Machine,
    visible: str | None,
    deadline: float | None,
    following: Synchronized[int],
    results: Queue[Message],
) -> None:
    """One process: takes jobs until there is none or no time for one."""
    import torch

    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible  # read when CUDA is first used, which is below
    torch.set_num_threads(1)
    worker = _Worker(jobs, setting, machine.device, deadline, following, results, machine.at_once == 1)
    if machine.at_once == 1:
        worker.run()
    else:
        threads = [threading.Thread(target=worker.run) for _ in range(machine.at_once)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    results.put(None)


class _Worker:
    def __init__(
        self,
        jobs: list[Job],
        setting: Setting,
        device: str,
        deadline: float | None,
        following: Synchronized[int],
        results: Queue[Message],
        alone: bool = True,
    ) -> None:
        self.jobs, self.setting, self.device, self.deadline = jobs, setting, device, deadline
        self.following, self.results = following, results
        self.alone, self.shortest = alone, 0.0

    def run(self) -> None:
        while True:
            with self.following.get_lock():
                number = self.following.value
                self.following.value = number + 1
            if number >= len(self.jobs):
                return
            try:
                self._train(self.jobs[number])
            except TimeUp:
                return

    def _train(self, job: Job) -> None:
        from hybrid_nas.evaluate import DeviceLost, Kept, evaluate

        setting, proposal, kept = self.setting, job.proposal, Kept()
        budget = setting.budget.of(proposal.proxy, setting.context)
        for number, seed in job.seeds:
            if self.deadline is not None and time.time() + self.shortest > self.deadline:
                raise TimeUp
            go_on = self._go_on(budget.trained(setting.context))
            try:
                outcome = evaluate(
                    proposal.proxy, setting.context, budget, setting.data, seed, go_on, self.device, kept=kept
                )
            except DeviceLost as error:
                self._end(proposal, number, seed, str(error))
            if outcome.state == "complete":
                self.shortest = min(self.shortest or outcome.seconds, outcome.seconds)
            self.results.put(self._trial(proposal, number, seed, outcome))

    def _trial(self, proposal: Proposal, number: int, seed: int, outcome: Outcome) -> Trial:
        return Trial(
            number=number,
            design=proposal.design,
            proxy=proposal.proxy,
            target=proposal.target,
            cost=proposal.cost,
            budget=self.setting.budget,
            seed=seed,
            **vars(outcome),
        )

    def _end(self, proposal: Proposal, number: int, seed: int, why: str) -> NoReturn:
        """End the process, which has lost its device. Where several trained, nobody knows which of them did it."""
        from hybrid_nas.evaluate import Outcome

        if self.alone:
            self.results.put(self._trial(proposal, number, seed, Outcome("failed", failure=why)))
        beside = "" if self.alone else ", or beside it"
        self.results.put(f"a process ended at {proposal.proxy.layout}, seed {seed}{beside}: {why}")
        self.results.close()
        self.results.join_thread()  # until it is told
        os._exit(1)

    def _go_on(self, tokens: int) -> Callable[[Progress], bool]:
        """What ends a training of `tokens` when the time is up, and says how far it came."""
        started = time.time()

        def go_on(progress: Progress) -> bool:
            parent = multiprocessing.parent_process()
            if parent is not None and not parent.is_alive():  # killed: nobody would hear of the result
                raise TimeUp
            if self.deadline is not None and time.time() > self.deadline:
                self.results.put(Unfinished(progress.tokens / tokens, time.time() - started))
                raise TimeUp
            return True

        return go_on
