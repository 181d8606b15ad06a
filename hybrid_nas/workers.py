"""Where trainings run, seen from a search: a Pool takes jobs as values, and its events are their outcomes.

Behind it stand processes of this machine (`hybrid_nas.processes`) or a Ray cluster (`hybrid_nas.ray_workers`). A job is
JSON: the arguments of `hybrid_nas.evaluate.evaluate`, and the limits that its worker keeps to.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

GIB = 2**30
WORKER_BYTES = GIB


@dataclass(frozen=True)
class Report:
    """A message of a running job. `validation`: held-out scores at a rung; the worker waits for `Pool.answer`."""

    job: int
    tokens: int
    loss: float
    validation: bool
    recall: float | None = None


@dataclass(frozen=True)
class Done:
    """The outcome of a job, as `hybrid_nas.evaluate.Outcome.to_dict` gives it."""

    job: int
    outcome: dict[str, Any]


@dataclass(frozen=True)
class Moved:
    """A job lost its worker, and the pool itself has begun it again on another."""

    job: int
    reason: str


@dataclass(frozen=True)
class Died:
    """A job lost its worker, and there is no outcome. `final`: another try would end no better."""

    job: int
    reason: str
    final: bool = False


@dataclass(frozen=True)
class Note:
    """Something that whoever looks on should know of the workers."""

    text: str


Event = Report | Done | Moved | Died | Note


class Messages:
    """Lines of JSON that a process writes."""

    def __init__(self, output: IO[bytes]) -> None:
        self.output = output
        self.begun = b""

    def read(self) -> Iterator[dict[str, Any] | None]:
        """Those that have come; None for the end of the output."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        if not chunk:
            yield None
            return
        *lines, self.begun = (self.begun + chunk).split(b"\n")
        for line in lines:
            yield json.loads(line)


def how_ended(code: int) -> str:
    """
    >>> how_ended(-9), how_ended(1)
    ('ended by signal SIGKILL', 'ended with exit code 1')
    """
    return f"ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class PoolGone(RuntimeError):
    """There are no workers any more, and new ones end as well."""


class Pool(Protocol):
    """Workers. `size` is how many jobs run at a time, `free` how many more may be submitted now."""

    @property
    def size(self) -> int: ...

    @property
    def free(self) -> int: ...

    def submit(self, number: int, job: dict[str, Any]) -> None:
        """Start a job on a free worker."""

    def answer(self, number: int, go_on: bool) -> None:
        """Let the job that waits at a rung go on, or stop it there."""

    def events(self, timeout: float) -> Iterable[Event]:
        """What has come from the workers within `timeout` seconds."""

    def close(self) -> None:
        """End every worker at once."""


def default_workers() -> int:
    """One worker a core that this process may use, of one thread each, and no more than a GiB of free memory each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else None
    memory = cores if pages is None else pages * os.sysconf("SC_PAGE_SIZE") // WORKER_BYTES
    return max(1, min(cores, memory))
