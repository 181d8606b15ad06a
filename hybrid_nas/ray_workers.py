"""Workers on a Ray cluster, as a search sees them: a Pool whose far end is `hybrid_nas.ray_driver`.

Nothing of Ray is imported here. The process at the far end is started again where it ends, and gets the jobs that it
held; a search ends with it only where that is of no use.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from hybrid_nas.workers import Died, Done, Event, Messages, Moved, Note, PoolGone, Report, how_ended

ENDINGS = 3
"""How often in a row, with no job done between, the far end may end before the search gives up."""
START_S = 300.0
QUIET = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_MAX_PENDING_TRIALS_PG": "64"}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's word for a node of its own, that listens on 127.0.0.1 and nowhere else."""


@dataclass(frozen=True)
class Cluster:
    """`address` of a running cluster; None: one is started on this machine, and ends with the search. `cpus`, `gpus`
    (a share of one, too) and `memory` (bytes) are what one worker takes; `gpus` None: a whole one where
    the cluster has any. `size` workers, None: as many as fit.
    `send_code`: nodes get this package from here instead of having it installed."""

    address: str | None = None
    size: int | None = None
    cpus: float = 1.0
    gpus: float | None = None
    memory: int | None = None
    send_code: bool = False


class RayPool:
    """Jobs on Ray Tune. ValueError if Ray is not installed, or the cluster cannot be used."""

    def __init__(self, cluster: Cluster, data: dict[str, Any], log: Path | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ValueError("--ray needs the package ray: pip install 'hybrid-nas[ray]'")
        self.cluster = cluster
        self.data = data
        self.log = log
        self.size = cluster.size or 1
        self.jobs: dict[int, dict[str, Any]] = {}
        self.endings = 0
        self.error: str | None = None
        self._start()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def free(self) -> int:
        return max(0, self.size - len(self.jobs))

    def submit(self, number: int, job: dict[str, Any]) -> None:
        self.jobs[number] = job
        self._send({"job": number, "spec": job})

    def answer(self, number: int, go_on: bool) -> None:
        self._send({"job": number, "go_on": go_on})

    def events(self, timeout: float) -> Iterator[Event]:
        for message in self._messages(timeout):
            if message is None:
                yield from self._again()
                return
            if "size" in message:
                self.size = message["size"]
                if message["note"]:
                    yield Note(message["note"])
            elif "error" in message:
                self.error = message["error"]
            elif message["job"] in self.jobs:
                yield from self._event(message["job"], message)

    def _event(self, job: int, message: dict[str, Any]) -> Iterator[Event]:
        if "outcome" in message:
            del self.jobs[job]
            self.endings = 0
            yield Done(job, message["outcome"])
        elif "moved" in message:
            yield Moved(job, message["moved"])
        elif "died" in message:
            del self.jobs[job]
            yield Died(job, message["died"], final=True)
        else:
            yield Report(job, message["tokens"], message["loss"], message["validation"], message["recall"])

    def close(self) -> None:
        """End the far end, and with it whatever it started."""
        self.stdin.close()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.selector.close()
        self.stdout.close()

    def _start(self) -> None:
        environment = {**QUIET, **os.environ}
        if self.cluster.address is None:
            environment |= ON_LOOPBACK
        errors: IO[bytes] | int = subprocess.DEVNULL if self.log is None else self.log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hybrid_nas.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the search
        )
        if not isinstance(errors, int):
            errors.close()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.messages = Messages(self.stdout)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.stdout, selectors.EVENT_READ)
        settings = asdict(self.cluster)
        worker = {"cpu": settings.pop("cpus"), "gpu": settings.pop("gpus"), "memory": settings.pop("memory")}
        self._send({**settings, "worker": worker, "data": self.data})
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            for message in self._messages(1.0):
                if message is None:
                    raise PoolGone(f"Ray {self._ended()} while it started{self._see_log()}")
                if message.get("wrong"):
                    self.close()
                    raise ValueError(f"--ray: {message['error']}")
                self.size = message.get("size", self.size)
                if "ready" in message:
                    return
        self.close()
        raise PoolGone(f"Ray did not start within {START_S:.0f} s{self._see_log()}")

    def _again(self) -> Iterator[Event]:
        """The far end is gone: another one, for the jobs that it held."""
        ended = self.error or f"Ray's driver {self._ended()}"
        self.error = None
        self.selector.close()
        self.stdin.close()
        self.stdout.close()
        self.endings += 1
        if self.endings >= ENDINGS:
            raise PoolGone(f"{ended}, {self.endings} times in a row{self._see_log()}")
        try:
            self._start()
        except ValueError as error:
            raise PoolGone(f"{ended}, and then: {error}") from error
        for job in self.jobs:
            yield Moved(job, f"{ended}; it starts again")
        for job, spec in self.jobs.items():
            self._send({"job": job, "spec": spec})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended: the end of its output, read next, says so
            self.stdin.write(json.dumps(message).encode() + b"\n")

    def _messages(self, timeout: float) -> Iterator[dict[str, Any] | None]:
        """What has come; None for the end of the output."""
        if self.selector.select(timeout):
            yield from self.messages.read()

    def _ended(self) -> str:
        try:
            code = self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            code = self.process.wait()
        return how_ended(code)

    def _see_log(self) -> str:
        return "" if self.log is None else f"; {self.log} says more"
