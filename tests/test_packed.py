"""Who runs beside whom: by memory as measured."""

import threading
import time

import pytest

from hybrid_nas.packed import Room, together


class Memory:
    """A device of `total` bytes; each job takes its bytes and gives them back."""

    def __init__(self, total):
        self.total, self.used, self.peak, self.lock = total, 0, 0, threading.Lock()

    def take(self, count):
        with self.lock:
            self.used += count
            self.peak = max(self.peak, self.used)
            assert self.used <= self.total, "out of memory"

    def measure(self):
        with self.lock:
            return self.total - self.used, self.used


def job(memory, size, answer):
    def run(built):
        memory.take(size)
        built()
        time.sleep(0.05)
        memory.take(-size)
        if answer is None:
            raise RuntimeError("this one fails")
        return answer

    return run


def test_as_many_run_at_once_as_memory_holds_and_no_more() -> None:
    memory = Memory(100)
    room = Room(memory.measure)
    assert together([job(memory, 20, i) for i in range(12)], room, at_once=12) == list(range(12))
    # A fifth needs 25 free beside four of 20, and finds 20.
    assert 2 <= room.most <= 4
    assert memory.used == 0


def test_no_more_than_asked_for_and_at_least_one() -> None:
    memory = Memory(1000)
    room = Room(memory.measure)
    assert together([job(memory, 1, i) for i in range(6)], room, at_once=2) == list(range(6))
    assert room.most == 2
    tight = Memory(10)
    room = Room(tight.measure)
    assert together([job(tight, 9, i) for i in range(3)], room, at_once=3) == [0, 1, 2]
    assert room.most == 1


def test_one_failure_leaves_room_for_the_others() -> None:
    memory = Memory(100)
    room = Room(memory.measure)
    with pytest.raises(RuntimeError, match="this one fails"):
        together([job(memory, 20, i if i != 2 else None) for i in range(6)], room, at_once=6)
    assert room.running == 0
    assert memory.used == 0
