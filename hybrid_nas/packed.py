"""Several candidates on one GPU at once: one thread and one stream each, in one process.

A small proxy leaves most of a GPU idle between its short kernels; others run there. How many is decided by memory as it
was measured: the first candidate builds alone, and another begins only where the free memory holds the largest seen so
far and a reserve. A candidate that fails, out of memory included, is a failed outcome of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

RESERVE = 1.25
"""Free memory asked for, as a multiple of the largest candidate measured: held-out scores need some for a while."""
T = TypeVar("T")


@dataclass
class Room:
    """Lets candidates in as memory allows. `measure` gives the device's free bytes and the bytes in use here."""

    measure: Callable[[], tuple[int, int]]
    condition: threading.Condition = field(default_factory=threading.Condition)
    running: int = 0
    building: int = 0
    most: int = 0
    """Most that ran at once."""
    before: int = 0
    largest: int = 0

    def enter(self) -> None:
        """Wait until there is room. The first goes in at once; the second waits until the first is measured."""
        with self.condition:
            self.condition.wait_for(self._fits)
            if not self.running:
                self.before = self.measure()[1]
            self.running += 1
            self.building += 1
            self.most = max(self.most, self.running)

    def built(self) -> None:
        """A candidate holds what it will hold: take its measure, and let others look."""
        with self.condition:
            self.building = max(0, self.building - 1)
            used = self.measure()[1] - self.before
            self.largest = max(self.largest, used // max(1, self.running), 1)
            self.condition.notify_all()

    def leave(self) -> None:
        with self.condition:
            self.running -= 1
            self.building = min(self.building, self.running)
            self.condition.notify_all()

    def _fits(self) -> bool:
        if not self.running:
            return True
        return self.largest > 0 and self.measure()[0] >= RESERVE * self.largest * (1 + self.building)


def device_memory(device: torch.device) -> Callable[[], tuple[int, int]]:
    """Free bytes, those that this process holds unused included, and bytes that this process holds in use."""

    def measure() -> tuple[int, int]:
        free = torch.cuda.mem_get_info(device)[0]
        held, used = torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device)
        return free + held - used, held

    return measure


def together(jobs: Sequence[Callable[[Callable[[], None]], T]], room: Room, at_once: int) -> list[T]:
    """The results of `jobs`, at most `at_once` of them at a time, in their order. Each job is called with a function
    that it calls once it holds the memory that it will hold."""

    def run(job: Callable[[Callable[[], None]], T]) -> T:
        room.enter()
        try:
            return job(room.built)
        finally:
            room.leave()

    with ThreadPoolExecutor(max_workers=at_once) as pool:
        return list(pool.map(run, jobs))
