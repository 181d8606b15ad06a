"""What a training may take: time, by a clock that nobody sets, and memory."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field

from hybrid_nas.units import duration

SILENCE_S = 900.0
"""A training that makes no step for so long hangs."""


@dataclass
class Stopwatch:
    """The time of one job. `limit` counts what it trains, not what it waits for an answer; None: as long as it takes.
    `silence` is how long it may be still."""

    limit: float | None = None
    silence: float = SILENCE_S
    spent: float = 0.0
    heard: float | None = field(default_factory=lambda: time.monotonic())
    """When it last gave a sign of life; None while it waits for an answer."""

    def sign(self) -> None:
        """It lives."""
        now = time.monotonic()
        if self.heard is not None:
            self.spent += now - self.heard
        self.heard = now

    def wait(self) -> None:
        """It waits for an answer."""
        self.sign()
        self.heard = None

    @property
    def over_limit(self) -> bool:
        still = 0.0 if self.heard is None else time.monotonic() - self.heard
        return self.limit is not None and self.spent + still > self.limit

    @property
    def verdict(self) -> str | None:
        """Why it must be ended; None if it need not."""
        if self.over_limit and self.limit is not None:
            return f"took longer than its time limit of {duration(self.limit)}"
        if self.heard is not None and time.monotonic() - self.heard > self.silence:
            return f"made no step for {duration(self.silence)}"
        return None


def limit_memory(size: int | None) -> None:
    """Let this process have no more than `size` bytes of memory of its own; None: as much as there is. Going beyond it
    is an error in the process, not its end."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if size is None or (hard != resource.RLIM_INFINITY and hard < size) else size
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def memory_limit() -> int | None:
    soft = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def go_first() -> None:
    """Where memory runs out, let the kernel end this process before the one that keeps the record."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
    except OSError:
        pass  # no Linux, or one that forbids it
