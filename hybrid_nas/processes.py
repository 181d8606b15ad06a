"""Workers on this machine: processes of one thread each, that receive values and return values, as lines of JSON.

A worker is `python -m hybrid_nas.processes`. It reads a job from its standard input, reports progress and outcome on
its standard output, and ends when either is closed: a driver that was killed leaves no worker behind.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hybrid_nas.limits import Stopwatch, go_first, limit_memory
from hybrid_nas.workers import Died, Done, Event, Messages, Report, how_ended


class Worker:
    """One process. `job` is the number of the job that it holds, None while it is free."""

    def __init__(self, threads: int, log: Path | None, module: tuple[str, ...] = ("hybrid_nas.processes",)) -> None:
        self.job: int | None = None
        self.watch = Stopwatch()
        self.why: str | None = None
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads))}
        errors: IO[bytes] | int = subprocess.DEVNULL if log is None else log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the driver; it stops the workers
        )
        if not isinstance(errors, int):
            errors.close()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin = self.process.stdin
        self.stdout = self.process.stdout
        self.messages = Messages(self.stdout)

    def send(self, message: dict[str, Any]) -> None:
        try:
            self.stdin.write(json.dumps(message).encode() + b"\n")
            self.stdin.flush()
        except BrokenPipeError:
            pass  # it died: the end of its output, read next, says so

    def end(self) -> str:
        """Let it end, or end it; how it ended, in words."""
        try:
            self.process.wait(timeout=1.0)  # its output has ended, so it is on its way out by itself
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.stdin.close()
        self.stdout.close()
        return how_ended(self.process.returncode)


class ProcessPool:
    """Worker processes, started when first needed and replaced when they die."""

    def __init__(self, size: int, threads: int = 1, log: Path | None = None) -> None:
        self.size = size
        self.threads = threads
        self.log = log
        self.workers: list[Worker] = []
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> ProcessPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def free(self) -> int:
        return self.size - sum(worker.job is not None for worker in self.workers)

    def submit(self, number: int, job: dict[str, Any]) -> None:
        """Start a job (the arguments of `hybrid_nas.evaluate.evaluate`, as JSON) on a free worker."""
        worker = next((worker for worker in self.workers if worker.job is None), None)
        if worker is None:
            assert len(self.workers) < self.size, "no worker is free"
            worker = Worker(self.threads, self.log)
            self.workers.append(worker)
            self.selector.register(worker.stdout, selectors.EVENT_READ, worker)
        worker.job, worker.watch = number, Stopwatch(job.get("time_limit"))
        worker.send(job)

    def answer(self, number: int, go_on: bool) -> None:
        """Let the job that waits at a rung go on, or stop it there."""
        for worker in self.workers:
            if worker.job == number:
                worker.watch.sign()
                worker.send({"go_on": go_on})

    def events(self, timeout: float) -> Iterator[Event]:
        """What has come from the workers within `timeout` seconds."""
        for key, _ in self.selector.select(timeout):
            yield from self._events(key.data)
        for worker in self.workers:
            if worker.job is not None and worker.why is None and (why := worker.watch.verdict):
                worker.why = why
                worker.process.kill()  # the end of its output, read next, says that it died

    def _events(self, worker: Worker) -> Iterator[Event]:
        for message in worker.messages.read():
            job = worker.job
            if message is None:
                self.selector.unregister(worker.stdout)
                self.workers.remove(worker)
                ended = worker.end()
                if job is not None and worker.why is not None:
                    yield Died(job, worker.why, final=worker.watch.over_limit)
                elif job is not None:
                    yield Died(job, f"its worker {ended}")
            elif "lost" in message:
                worker.why = message["lost"]  # it ends now, and the end of its output says that it died
            elif job is not None and "outcome" in message:
                worker.job = None
                yield Done(job, message["outcome"])
            elif job is not None:
                worker.watch.wait() if message["validation"] else worker.watch.sign()
                yield Report(job, **message)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The workers stand still for a while, and go on."""
        stopped = [worker.process for worker in self.workers if worker.process.poll() is None]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End every worker at once."""
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            self.selector.unregister(worker.stdout)
            worker.process.wait()
            worker.end()
        self.workers.clear()
        self.selector.close()


def serve() -> None:
    """The worker's side: read a job a line, report, answer, until the input ends."""
    import torch

    from hybrid_nas.architecture import Architecture
    from hybrid_nas.budget import Budget
    from hybrid_nas.evaluate import DeviceLost, Progress, evaluate

    go_first()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to the log, not between the messages

    def say(message: dict[str, Any]) -> None:
        try:
            output.write(json.dumps(message).encode() + b"\n")
            output.flush()
        except BrokenPipeError:
            os._exit(0)  # the driver is gone

    def report(progress: Progress) -> bool:
        say(progress.to_dict())
        if not progress.validation:
            return True
        answer = sys.stdin.readline()
        if not answer:
            os._exit(0)
        return bool(json.loads(answer)["go_on"])

    for line in sys.stdin:
        job = json.loads(line)
        limit_memory(job.get("memory"))
        try:
            outcome = evaluate(
                Architecture.from_dict(job["architecture"]),
                job["context"],
                Budget.from_dict(job["budget"]),
                job["data"],
                job["seed"],
                report,
            )
        except DeviceLost as error:
            say({"lost": str(error)})
            os._exit(1)
        say({"outcome": outcome.to_dict()})


if __name__ == "__main__":
    serve()
