"""The process between a search and a Ray cluster: it runs Ray Tune.

`python -m hybrid_nas.ray_driver` reads settings, jobs and answers as lines of JSON from its standard input, and writes
events to its standard output; `hybrid_nas.ray_workers` is the other end. Each job is one trial of Tune, which places
it, begins it again where a worker or a node is lost, and hands its process on to the next. A process of its own,
because Ray ends the process it runs in when its own part on the node is gone, and a search should outlive that.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hybrid_nas.data import Corpus, open_corpus
from hybrid_nas.ray_tune import NAMESPACE, Desk, Training, code_here, fields_of
from hybrid_nas.source_code import fingerprint, package_folders

FAILURES = 8
"""How often Tune begins a trial again whose worker is lost. Nodes that go at once can cost a trial several: it may be
handed to one that is gone and not yet known to be."""
COUNT_S = 5.0
ANSWER_S = 10.0


class Wrong(RuntimeError):
    """The cluster is not as it must be; the message is for the user."""


class Feed(Searcher):  # type: ignore[misc]
    """Hands Tune the jobs that come, and tells of trials that it gives up."""

    def __init__(self, desk: str, lost: Callable[[int, str, bool], None]) -> None:
        super().__init__()
        self.desk = desk
        self.lost = lost
        self.condition = threading.Condition()
        self.waiting: list[int] = []
        self.trials: dict[str, int] = {}
        self.closed = False

    def add(self, number: int) -> None:
        with self.condition:
            self.waiting.append(number)
            self.condition.notify_all()

    def close(self) -> None:
        with self.condition:
            self.closed = True
            self.condition.notify_all()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with self.condition:
            if not self.trials:  # with nothing to attend to, Tune would sleep for a second a look
                self.condition.wait_for(lambda: self.waiting or self.closed)
            if self.closed:
                return str(Searcher.FINISHED)
            if not self.waiting:
                return None
            self.trials[trial_id] = self.waiting.pop(0)
            return {"job": self.trials[trial_id], "desk": self.desk}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        with self.condition:
            number = self.trials.pop(trial_id, None)
        if number is not None and error:
            self.lost(number, "its worker was lost again and again", False)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its searcher down; the record is Optuna's

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `__getstate__`."""


class Losses(tune.Callback):  # type: ignore[misc]
    """Hears of the workers that Tune replaces."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = self.feed.trials.get(trial.trial_id)
        if number is not None:
            self.feed.lost(number, described(trial), True)


def described(trial: Any) -> str:
    """How a trial's worker ended, in one line."""
    error = trial.get_error() if hasattr(trial, "get_error") else None
    text = " ".join(str(error).split()) if error is not None else "no details"
    for mark, words in (
        ("node was terminated", "its node is gone"),
        ("node has been marked dead", "its node is gone"),
        ("was killed by the OOM", "its node ran out of memory, and Ray ended it"),
        ("memory monitor", "its node ran out of memory, and Ray ended it"),
        ("another hybrid-nas is installed", "its node has another hybrid-nas than the machine of the search"),
    ):
        if mark in text:
            return words
    return "its worker is gone"


def answers_at(address: str) -> None:
    """Ray would wait for minutes where nothing answers. Raises Wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in host or not port.isdecimal():
        return  # `auto`, or a client's address: Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise Wrong(
            f"no Ray cluster answers at {address} ({getattr(error, 'strerror', None) or error}); start its head there: "
            f"ray start --head --node-ip-address={host} --port={port}"
        ) from error


class Driver:
    """One connection to a cluster, and Tune upon it."""

    def __init__(self, settings: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
        self.settings = settings
        self.say = say
        self.connect()
        if settings["worker"]["gpu"] is None:
            settings["worker"]["gpu"] = min(1.0, ray.cluster_resources().get("GPU", 0.0))
        self.worker: dict[str, float] = {name: size for name, size in settings["worker"].items() if size}
        self.check()
        self.counted = -COUNT_S
        self.carries: int | None = None
        name = f"desk-{uuid.uuid4().hex[:12]}"
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        text = open_corpus(Corpus.from_dict(settings["data"]))
        held = ray.put(fields_of(text))
        actor = ray.remote(num_cpus=0, max_concurrency=10_000)(Desk)
        self.desk = actor.options(name=name, scheduling_strategy=here).remote([held], fingerprint())
        self.watch = self.desk.watch.remote()
        self.feed = Feed(name, self.lost)

    def connect(self) -> None:
        address = self.settings["address"]
        environment: dict[str, Any] = {"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}}
        if self.settings["send_code"]:
            environment["py_modules"] = [str(folder) for folder in package_folders()]
        only_here = {"address": "local", "include_dashboard": False}
        if address is not None:
            answers_at(address)
        try:
            ray.init(
                **(only_here if address is None else {"address": address}),
                namespace=NAMESPACE,
                runtime_env=environment,
                log_to_driver=False,
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = "here" if address is None else f"at {address}"
            token = (
                "; a head that asks for a token needs RAY_AUTH_MODE=token here and ~/.ray/auth_token" if address else ""
            )
            raise Wrong(f"Ray could not be reached {where}: {' '.join(str(error).split())}{token}") from error

    def check(self) -> None:
        """Every node must have the code that this process has. Raises Wrong."""
        look = ray.remote(num_cpus=0, max_retries=1)(code_here)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        looks = {
            node["NodeManagerAddress"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ).remote()
            for node in nodes
        }
        for place, found in looks.items():
            try:
                same = ray.get(found, timeout=120) == fingerprint()
            except (ray.exceptions.RayError, ModuleNotFoundError, ImportError) as error:
                raise Wrong(f"the node {place} cannot run hybrid-nas: {str(error).strip().splitlines()[-1]}") from error
            if not same:
                raise Wrong(
                    f"the node {place} has another hybrid-nas than this machine; install the same wheel on both, or "
                    "let --send-code send this one along"
                )
        kinds = ray.cluster_resources()
        for kind, size in self.worker.items():
            if kinds.get({"cpu": "CPU", "gpu": "GPU"}.get(kind, kind), 0) < size:
                have = kinds.get({"cpu": "CPU", "gpu": "GPU"}.get(kind, kind), 0)
                raise Wrong(f"a worker needs {size:g} {kind}, and the whole cluster has {have:g}")

    def capacity(self) -> int:
        """How many workers the cluster carries, by what each node has."""
        names = {"cpu": "CPU", "gpu": "GPU"}
        total = 0
        for node in ray.nodes():
            if node["Alive"]:
                have = node["Resources"]
                total += int(min(have.get(names.get(k, k), 0) / size + 1e-9 for k, size in self.worker.items()))
        return total

    def count(self) -> None:
        """Tell the search when the cluster has grown or shrunk."""
        if time.monotonic() - self.counted > COUNT_S:
            self.counted = time.monotonic()
            carries = self.capacity()
            if carries == self.carries:
                return
            first, self.carries = self.carries is None, carries
            note = f"the cluster carries {carries} workers now"
            if not carries:
                takes = ", ".join(f"{size:g} {kind}" for kind, size in self.worker.items())
                note = f"no node of the cluster has room for a worker ({takes}): trials wait for one"
            note = "" if first and carries else note
            self.say({"size": self.settings["size"] or max(1, carries), "note": note})

    def lost(self, number: int, reason: str, again: bool) -> None:
        self.desk.lost.remote(number, reason, again)

    def take(self, message: dict[str, Any]) -> None:
        """A line from the search."""
        if "spec" in message:
            ray.get(self.desk.add.remote(message["job"], message["spec"]))
            self.feed.add(message["job"])
        else:
            self.desk.answer.remote(message["job"], message["go_on"])

    def follow(self) -> None:
        """Pass on what is said at the desk, until it is gone."""
        try:
            while True:
                for message in ray.get(self.desk.messages.remote()):
                    self.say(message)
                self.count()
        except ray.exceptions.RayError as error:
            self.say({"error": f"Ray lost the desk of the search: {str(error).splitlines()[0].rstrip('.')}"})
            os._exit(1)

    def run(self) -> None:
        threading.Thread(target=self.follow, daemon=True).start()
        with tempfile.TemporaryDirectory() as folder:
            tuner = tune.Tuner(
                tune.with_resources(Training, self.worker),
                tune_config=tune.TuneConfig(search_alg=self.feed, num_samples=-1, reuse_actors=True),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=folder,
                    verbose=0,
                    callbacks=[Losses(self.feed)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the desk keeps them
                    failure_config=tune.FailureConfig(max_failures=FAILURES),
                ),
            )
            tuner.fit()


def main() -> None:
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever Ray prints goes to the log, not between the messages
    lock = threading.Lock()

    def say(message: dict[str, Any]) -> None:
        with lock:
            try:
                output.write(json.dumps(message).encode() + b"\n")
                output.flush()
            except BrokenPipeError:
                os._exit(0)  # the search is gone

    settings = json.loads(sys.stdin.readline())
    try:
        driver = Driver(settings, say)
    except (Wrong, ValueError) as error:
        say({"error": str(error), "wrong": True})
        return
    driver.count()
    say({"ready": True})

    def read() -> None:
        for line in sys.stdin:
            driver.take(json.loads(line))
        ray.shutdown()  # the search has ended, or is gone: what it left in flight is of no use to anyone
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    driver.run()


if __name__ == "__main__":
    main()
