"""Workers on this machine's GPUs: one process a GPU, in which several candidates train at once.

A process is `python -m hybrid_nas.packed_pool DEVICE COUNT`. Each of its jobs is a thread with a stream of its own, let
in as the memory measured on the device allows (`hybrid_nas.packed`). A candidate that fails, out of memory or over its
time, is a failed outcome and leaves its neighbours alone; only where the process itself ends do all of its jobs die.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hybrid_nas.limits import Stopwatch
from hybrid_nas.processes import Worker
from hybrid_nas.workers import Died, Done, Event, Report

TOGETHER = 8
"""Candidates at once on a GPU: at width 128, more gave no more candidate-steps a second on an H100."""


class PackedPool:
    """A process for each of `devices`, started when first needed and replaced when it dies, of `each` jobs at once."""

    def __init__(self, devices: Sequence[str], each: int = TOGETHER, log: Path | None = None) -> None:
        self.devices, self.each, self.log = list(devices), each, log
        self.size = len(self.devices) * each
        self.workers: dict[str, Worker] = {}
        self.jobs: dict[int, tuple[str, Stopwatch]] = {}
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> PackedPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def free(self) -> int:
        return self.size - len(self.jobs)

    def submit(self, number: int, job: dict[str, Any]) -> None:
        """Start a job (as `hybrid_nas.processes`) on the device that has the fewest."""
        busy = [device for device, _ in self.jobs.values()]
        device = min(self.devices, key=busy.count)
        assert busy.count(device) < self.each, "no worker is free"
        if device not in self.workers:
            worker = Worker(1, self.log, ("hybrid_nas.packed_pool", device, str(self.each)))
            self.workers[device] = worker
            self.selector.register(worker.stdout, selectors.EVENT_READ, device)
        watch = Stopwatch(job.get("time_limit"))
        watch.wait()  # for memory, and for neighbours that build: until it says that it has begun
        self.jobs[number] = device, watch
        self.workers[device].send({"number": number, "job": job})

    def answer(self, number: int, go_on: bool) -> None:
        """Let the job that waits at a rung go on, or stop it there."""
        if number in self.jobs:
            device, watch = self.jobs[number]
            watch.sign()
            self.workers[device].send({"number": number, "go_on": go_on})

    def events(self, timeout: float) -> Iterator[Event]:
        """What has come from the processes within `timeout` seconds."""
        for key, _ in self.selector.select(timeout):
            yield from self._events(key.data)
        for number, (device, watch) in self.jobs.items():
            worker, why = self.workers[device], watch.verdict
            if why and watch.over_limit:
                worker.send({"number": number, "failure": why})
            elif why and worker.why is None:
                worker.why = f"its neighbour {number} hung: {why}"
                worker.process.kill()  # the end of its output, read next, says that all died

    def _events(self, device: str) -> Iterator[Event]:
        worker = self.workers[device]
        for message in worker.messages.read():
            if message is None:
                self.selector.unregister(worker.stdout)
                del self.workers[device]
                ended = worker.why or f"its worker {worker.end()}"
                for number in [number for number, (where, _) in self.jobs.items() if where == device]:
                    del self.jobs[number]
                    yield Died(number, ended)
                return
            number = message.pop("number")
            if "lost" in message:
                worker.why = message["lost"]  # it ends now, and the end of its output says that all died
                continue
            watch = self.jobs[number][1]
            if "outcome" in message:
                del self.jobs[number]
                yield Done(number, message["outcome"])
            elif "began" in message:
                watch.sign()
            else:
                watch.wait() if message["validation"] else watch.sign()
                yield Report(number, **message)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The processes stand still for a while, and go on."""
        stopped = [worker.process for worker in self.workers.values() if worker.process.poll() is None]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End every process at once."""
        for worker in self.workers.values():
            worker.process.kill()
        for worker in self.workers.values():
            self.selector.unregister(worker.stdout)
            worker.process.wait()
            worker.end()
        self.workers.clear()
        self.selector.close()


class OverTime(RuntimeError):
    """The driver takes a job back."""


def serve(device: str, each: int) -> None:
    """The process: read jobs and answers, a line each; report and end jobs, until the input ends."""
    import torch

    from hybrid_nas.architecture import Architecture
    from hybrid_nas.budget import Budget
    from hybrid_nas.evaluate import DeviceLost, Progress, evaluate
    from hybrid_nas.packed import Room, device_memory

    torch.set_num_threads(1)
    output, writing = os.fdopen(os.dup(1), "wb"), threading.Lock()
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the messages
    on = torch.device(device)
    room = Room(device_memory(on) if on.type == "cuda" else lambda: (1 << 60, 0))
    answers: dict[int, queue.SimpleQueue[bool]] = {}
    taken_back: dict[int, str] = {}

    def say(number: int, message: dict[str, Any]) -> None:
        with writing:
            try:
                output.write(json.dumps({"number": number, **message}).encode() + b"\n")
                output.flush()
            except BrokenPipeError:
                os._exit(0)  # the driver is gone

    def run(number: int, job: dict[str, Any]) -> None:
        def report(progress: Progress) -> bool:
            if number in taken_back:
                raise OverTime(taken_back[number])
            say(number, progress.to_dict())
            return answers[number].get() if progress.validation else True

        if on.type == "cuda":
            torch.cuda.set_device(on)  # a thread's own, for kernels that are told no device
        room.enter()
        try:
            say(number, {"began": True})
            outcome = evaluate(
                Architecture.from_dict(job["architecture"]),
                job["context"],
                Budget.from_dict(job["budget"]),
                job["data"],
                job["seed"],
                report,
                device,
                room.built,
            )
        except DeviceLost as error:
            say(number, {"lost": str(error)})
            os._exit(1)
        finally:
            room.leave()
        say(number, {"outcome": outcome.to_dict()})

    with ThreadPoolExecutor(max_workers=each) as threads:
        for line in sys.stdin:
            message = json.loads(line)
            number = message["number"]
            if "job" in message:
                answers[number] = queue.SimpleQueue()
                threads.submit(run, number, message["job"])
            elif "failure" in message:
                taken_back[number] = message["failure"]
            else:
                answers[number].put(message["go_on"])
        os._exit(0)  # the driver is gone, and so is the use of what still trains


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
