"""How a search shows itself while it runs: a live table, plain lines where there is no terminal, or JSON lines."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hybrid_nas.cost import Cost
from hybrid_nas.front import Front
from hybrid_nas.objective import QUANTITIES
from hybrid_nas.search import Task, seconds_left
from hybrid_nas.study_file import StudyFile
from hybrid_nas.trial import Trial
from hybrid_nas.units import counted, duration, label, readable

LISTENED_S = 5.0
"""For how long the pace of the first training is measured, before it is told."""
LONG_S = 60.0
"""A training that takes longer is worth a word."""
STILL_S = 20.0
"""After so long without a pace, it is told what makes a training."""


class Progress:
    """What is known of a search in progress; the three ways of showing it differ in `show` alone."""

    def __init__(self, file: StudyFile, done: list[Trial], workers: int) -> None:
        self.file = file
        self.planned = file.search.trials
        """How many trials there will be: fewer than asked for, where the space has fewer designs."""
        self.workers = workers
        self.trials = list(done)
        self.tasks: dict[int, tuple[Task, float]] = {}
        self.begin = time.monotonic()
        self.noted: list[str] = []
        self._lacking: tuple[int, set[tuple[str, int]]] | None = None
        self._heard: dict[int, tuple[int, float]] = {}
        """Of each training the tokens and the time of its first step that was told, until a pace is told."""
        self._told = {"pace", "still"} if any(trial.seconds > 0 for trial in done) else set[str]()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def begun(self, task: Task) -> None:
        self.tasks[task.number] = task, time.monotonic()
        self._heard.pop(task.number, None)  # where it begins again

    def moved(self, task: Task, tokens: int, loss: float) -> None:
        now = time.monotonic()
        began, first = self._heard.setdefault(task.number, (tokens, now))
        if "pace" in self._told or tokens <= began or now - first < LISTENED_S:
            return
        self._told |= {"pace", "still"}
        steps, every = self._steps(task)
        took = every * (now - first) / (tokens - began)
        if took > LONG_S:
            scored = self.file.budget.validation_tokens
            self.said(
                f"one training takes about {duration(took)}, {counted(self.workers, 'training')} at a time: "
                f"{counted(steps, 'step')} at the pace of the first {tokens:,} tokens, and beside them {scored:,} "
                "tokens are scored at each rung and at the end"
            )

    def ended(self, trial: Trial) -> None:
        self.tasks.pop(trial.number, None)
        if trial.seconds > 0:
            self._told |= {"pace", "still"}  # from here on `seconds_left` tells
        self.trials.append(trial)

    def said(self, text: str) -> None:
        self.noted.append(text)

    def tick(self) -> None:
        if "still" in self._told or not self.tasks:
            return
        task, begun = self.running[0]
        if (waited := time.monotonic() - begun) > STILL_S:
            self._told.add("still")
            steps, every = self._steps(task)
            self.said(
                f"{duration(waited)} into trial {task.number}, {task.tokens:,} of its {every:,} tokens are trained on: "
                f"{counted(steps, 'step')}, and {self.file.budget.validation_tokens:,} tokens that are scored at each "
                "rung and at the end"
            )

    def _steps(self, task: Task) -> tuple[int, int]:
        """Of a training: its steps, and the tokens that it trains on."""
        budget, context = self.file.budget.of(task.proposal.proxy, self.file.proxy.context), self.file.proxy.context
        return budget.steps(context), budget.trained(context)

    def summary(self) -> dict[str, Any]:
        """Counts, the best so far, and the time left in seconds (None while unknown)."""
        search = [trial for trial in self.trials if trial.replicate_of is None]
        states = [trial.state for trial in search]
        best = min(
            (trial for trial in search if trial.state == "complete"), key=lambda t: t.values["loss"], default=None
        )
        to_do = max(0, self.planned - len(search) - sum(task.asked is not None for task, _ in self.running))
        since = [(time.monotonic() - begun, task.asked is None) for task, begun in self.running]
        left = seconds_left(self.trials, to_do, self.replicates_to_do(), self.workers, since)
        return {
            "trials": self.planned,
            "done": len(search),
            "complete": states.count("complete"),
            "stopped": states.count("stopped"),
            "failed": states.count("failed"),
            "running": len(self.tasks),
            "replicates": len(self.trials) - len(search),
            "best_loss": None if best is None else best.values["loss"],
            "best_layout": None if best is None else best.layout,
            "seconds": round(time.monotonic() - self.begin, 1),
            "seconds_left": None if left is None else round(left),
        }

    def replicates_to_do(self) -> int:
        """Trainings that the members of the front still lack and that no worker is at; until the search is over, as
        many as a front of four designs would need where it has fewer."""
        again = self.file.budget.replicates
        search = [trial for trial in self.trials if trial.replicate_of is None]
        if self._lacking is None or self._lacking[0] != len(self.trials):
            seeds = range(self.file.search.seed + 1, self.file.search.seed + 1 + again)
            have = {(t.proxy.id, t.seed) for t in self.trials if t.replicate_of is not None}
            front = Front.of(self.trials, self.file.objectives, draws=0) if again else None
            proxies = {member.key.partition("-")[0] for member in front.members} if front else set()
            lacking = {(proxy, seed) for proxy in proxies for seed in seeds} - have
            if len(search) < self.planned:
                lacking |= {(str(i), seed) for i in range(4 - len(proxies)) for seed in seeds}
            self._lacking = len(self.trials), lacking
        at_work = {(task.proposal.proxy.id, task.seed) for task, _ in self.running}
        return len(self._lacking[1] - at_work)

    @property
    def running(self) -> list[tuple[Task, float]]:
        return list(self.tasks.values())


def _costs(file: StudyFile) -> list[str]:
    """The efficiencies that a line of progress shows: the objectives, or the cache where none is one."""
    return [o.name for o in file.objectives if not o.trained] or ["cache_bytes"]


def _bought(cost: Cost, name: str) -> str:
    return readable(cost.value(name), QUANTITIES[name].unit) if cost.has(name) else ""


def _outcome(trial: Trial) -> str:
    loss = trial.values.get("loss")
    match trial.state:
        case "complete":
            recall = trial.values.get("recall")
            return f"loss {loss:.4f}" + ("" if recall is None else f"  recall {recall:.2f}")
        case "stopped":
            return f"stopped at {trial.tokens:,} tokens: dominated"
        case "failed":
            return f"failed: {trial.failure}"


def _head(trial: Trial) -> str:
    if trial.replicate_of is None:
        return f"trial {trial.number}"
    return f"replicate of {trial.replicate_of} (seed {trial.seed})"


class Lines(Progress):
    """One line an event, for logs and pipes."""

    def __init__(self, file: StudyFile, done: list[Trial], workers: int, console: Console) -> None:
        super().__init__(file, done, workers)
        self.console = console

    def ended(self, trial: Trial) -> None:
        super().ended(trial)
        summary = self.summary()
        shared = "" if trial.shared_with is None else f"  (training of trial {trial.shared_with})"
        left = "" if summary["seconds_left"] is None else f"  ~{_clock(summary['seconds_left'])} left"
        self.console.print(
            f"[{summary['done']}/{summary['trials']}] {_head(trial)}  {trial.layout}  "
            f"{'  '.join(f'{label(name)} {_bought(trial.cost, name)}' for name in _costs(self.file))}  "
            f"{_outcome(trial)}{shared}{left}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def said(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class JsonLines(Progress):
    """One JSON object a line, for scripts."""

    def ended(self, trial: Trial) -> None:
        super().ended(trial)
        print(
            json.dumps(
                {
                    "event": "trial" if trial.replicate_of is None else "replicate",
                    "number": trial.number,
                    "state": trial.state,
                    "layout": trial.layout,
                    "seed": trial.seed,
                    "values": trial.values,
                    "cache_bytes": trial.cost.cache_bytes,
                    **{name: trial.cost.value(name) for name in _costs(self.file) if trial.cost.has(name)},
                    "failure": trial.failure,
                    "shared_with": trial.shared_with,
                    "progress": self.summary(),
                }
            ),
            flush=True,
        )

    def said(self, text: str) -> None:
        print(json.dumps({"event": "note", "text": text}), flush=True)


class LiveTable(Progress):
    """A live table in a terminal."""

    def __init__(self, file: StudyFile, done: list[Trial], workers: int, console: Console) -> None:
        super().__init__(file, done, workers)
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, get_renderable=self._picture, transient=True)

    def __enter__(self) -> Progress:
        self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.live.stop()

    def said(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def ended(self, trial: Trial) -> None:
        super().ended(trial)
        if trial.state == "failed":
            self.said(f"{_head(trial)}  {trial.layout}  {_outcome(trial)}")

    def _picture(self) -> Group:
        summary = self.summary()
        left = "" if summary["seconds_left"] is None else f", about {_clock(summary['seconds_left'])} left"
        head = Text(
            f"{summary['done']} of {summary['trials']} trials done ({summary['complete']} complete, "
            f"{summary['stopped']} stopped early, {summary['failed']} failed), {summary['replicates']} replicates, "
            f"{_clock(summary['seconds'])} so far{left}"
        )
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        costs = _costs(self.file)
        for name in ("", "layout at the target", *map(label, costs), "loss", "recall", "state"):
            table.add_column(name, no_wrap=True)
        best = sorted(
            (t for t in self.trials if t.state == "complete" and t.replicate_of is None),
            key=lambda t: t.values["loss"],
        )
        for trial in best[:6]:
            recall = trial.values.get("recall")
            table.add_row(
                str(trial.number),
                trial.layout,
                *(_bought(trial.cost, name) for name in costs),
                f"{trial.values['loss']:.4f}",
                "" if recall is None else f"{recall:.2f}",
                "best so far" if trial is best[0] else "",
                style="bold" if trial is best[0] else "",
            )
        for task, _ in self.running:
            total = self._steps(task)[1]
            name = str(task.number) if task.replicate_of is None else f"{task.replicate_of} again"
            loss = "" if task.loss is None else f"{task.loss:.4f}"
            paid = [_bought(task.proposal.cost, cost) for cost in costs]
            share = min(1.0, task.tokens / total)
            table.add_row(name, task.proposal.target.layout, *paid, loss, "", f"training {share:.0%}", style="cyan")
        return Group(head, table)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
