"""What runs on a Ray cluster: trials of Ray Tune that train, and the desk where they report and ask.

The desk is an actor beside the driver. It holds the text, the jobs, their last checkpoints and the answers at rungs, so
that workers share nothing but Ray with the driver. Text and checkpoints lie in Ray's object store: a node fetches the
text once.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import numpy as np
import ray
from ray import tune

from hybrid_nas.data import Text
from hybrid_nas.limits import Stopwatch, go_first, limit_memory
from hybrid_nas.source_code import fingerprint

NAMESPACE = "hybrid-nas"
WATCH_S = 0.5
POLL_S = 2.0


class Desk:
    """Where trials report and ask. One event loop, so nothing here needs a lock."""

    def __init__(self, text: list[Any], code: str) -> None:
        self.holds_text = text
        self.code = code
        self.jobs: dict[int, dict[str, Any]] = {}
        self.watches: dict[int, Stopwatch] = {}
        self.workers: dict[int, Any] = {}
        self.kept: dict[int, Any] = {}
        self.rungs: dict[int, int] = {}
        self.answers: dict[tuple[int, int], asyncio.Future[bool]] = {}
        self.over: dict[int, str] = {}
        self.ended: dict[int, str] = {}
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def add(self, number: int, job: dict[str, Any]) -> None:
        self.jobs[number] = job

    async def text(self) -> list[Any]:
        """Whoever asks for the object behind it gets it from its own node, which fetches it once."""
        return self.holds_text

    async def begin(self, number: int, code: str, worker: Any) -> dict[str, Any]:
        """What a worker needs to begin a job, or to go on with it."""
        if code != self.code:
            raise RuntimeError("another hybrid-nas is installed on this node than on the driver's")
        if number not in self.jobs:
            return {"finished": True}
        if number in self.over:
            return {"over": self.over[number]}
        job = self.jobs[number]
        self.watches[number] = Stopwatch(job.get("time_limit"))
        self.workers[number] = worker
        return {"job": job, "kept": self.kept.get(number)}

    async def report(self, number: int, message: dict[str, Any]) -> None:
        if number in self.watches:
            self.watches[number].sign()
            self.said.put_nowait({"job": number, **message})

    async def rung(self, number: int, message: dict[str, Any], checkpoint: bytes) -> bool:
        """Keep the checkpoint, tell the driver once, and wait for its answer."""
        mark = (number, message["tokens"])
        self.kept[number] = ray.put(checkpoint)
        self.watches[number].wait()
        if mark not in self.answers:
            self.answers[mark] = asyncio.get_running_loop().create_future()
            self.rungs[number] = message["tokens"]
            self.said.put_nowait({"job": number, **message})
        answer = await asyncio.shield(self.answers[mark])
        self.watches[number].sign()
        return answer

    async def answer(self, number: int, go_on: bool) -> None:
        future = self.answers.get((number, self.rungs.get(number, -1)))
        if future is not None and not future.done():
            future.set_result(go_on)

    async def finish(self, number: int, outcome: dict[str, Any]) -> None:
        if self.forget(number):
            self.said.put_nowait({"job": number, "outcome": outcome})

    def forget(self, number: int) -> bool:
        """Let go of a job; False if that was done before."""
        known = self.jobs.pop(number, None) is not None
        for kept in (self.watches, self.workers, self.kept, self.rungs, self.over, self.ended):
            kept.pop(number, None)
        for mark in [mark for mark in self.answers if mark[0] == number]:
            del self.answers[mark]
        return known

    async def lost(self, number: int, reason: str, again: bool) -> None:
        """Tune says that a job's worker is gone, and whether it begins the job again."""
        self.watches.pop(number, None)
        why = self.ended.pop(number, None) or reason
        if not again:
            if self.forget(number):
                self.said.put_nowait({"job": number, "died": why})
        elif number in self.jobs and number not in self.over:
            where = f"goes on from its rung at {self.rungs[number]:,} tokens" if number in self.kept else "starts again"
            self.said.put_nowait({"job": number, "moved": f"{why}; it {where}"})

    async def watch(self) -> None:
        """End workers that hang or are over their time, for as long as the desk stands."""
        while True:
            await asyncio.sleep(WATCH_S)
            for number, watch in list(self.watches.items()):
                why = watch.verdict
                if why is not None:
                    del self.watches[number]
                    self.ended[number] = why
                    if watch.over_limit:
                        self.over[number] = why
                    ray.kill(self.workers[number])

    async def messages(self) -> list[dict[str, Any]]:
        """What has been said since the last time; waits for something."""
        found = []
        try:
            found.append(await asyncio.wait_for(self.said.get(), POLL_S))
        except TimeoutError:
            return found
        while not self.said.empty():
            found.append(self.said.get_nowait())
        return found


class Training(tune.Trainable):  # type: ignore[misc]
    """One job, as Tune sees it: a single step. Its process takes the next job when Tune says so."""

    def setup(self, config: dict[str, Any]) -> None:
        go_first()
        self.take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.take(new_config)
        return True

    def take(self, config: dict[str, Any]) -> None:
        self.number = config["job"]
        self.desk = ray.get_actor(config["desk"], namespace=NAMESPACE)

    def step(self) -> dict[str, Any]:
        import torch

        from hybrid_nas.architecture import Architecture
        from hybrid_nas.budget import Budget
        from hybrid_nas.evaluate import Outcome, Progress, evaluate

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        desk, number = self.desk, self.number
        begun = ray.get(desk.begin.remote(number, fingerprint(), ray.get_runtime_context().current_actor))
        if "finished" in begun:
            return {"done": True}
        if "over" in begun:
            ray.get(desk.finish.remote(number, Outcome("failed", failure=begun["over"]).to_dict()))
            return {"done": True}
        job = begun["job"]
        limit_memory(job.get("memory"))

        def report(progress: Progress) -> bool:
            message = progress.to_dict()
            if progress.save is None:
                desk.report.remote(number, message)
                return True
            return bool(ray.get(desk.rung.remote(number, message, progress.save())))

        outcome = evaluate(
            Architecture.from_dict(job["architecture"]),
            job["context"],
            Budget.from_dict(job["budget"]),
            text_of(desk),
            job["seed"],
            report,
            resumed=None if begun["kept"] is None else ray.get(begun["kept"]),
        )
        ray.get(desk.finish.remote(number, outcome.to_dict()))
        return {"done": True}


_texts: dict[str, Text] = {}


def fields_of(text: Text) -> dict[str, Any]:
    """What `text_of` makes it of again, its arrays in memory."""
    return {**vars(text), "train": np.asarray(text.train), "held_out": np.asarray(text.held_out)}


def text_of(desk: Any) -> Text:
    """The text, mapped from the node's part of the object store."""
    key = str(desk._actor_id.hex())
    if key not in _texts:
        fields = ray.get(ray.get(desk.text.remote())[0])
        _texts.clear()
        _texts[key] = Text(**fields)
    return _texts[key]


def code_here() -> str:
    """The fingerprint of the code on the node where this runs; torch must be there too."""
    import torch  # noqa: F401

    return fingerprint()
