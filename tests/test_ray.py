"""A search on Ray: one answer with the local one, and what survives when workers, nodes and the driver are killed.

The cluster is real: a head that trains nothing, and a node that sees none of the run folder, the data or the user's
cache, as if it were another machine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from installed import COMMAND, TINY, environment
from servers import Ray, descendants, named, wait_for

from hybrid_nas.data import Text
from hybrid_nas.run_folder import Run
from hybrid_nas.storage import open_storage
from hybrid_nas.study import SO_FAR, Record
from hybrid_nas.trial import Trial
from hybrid_nas.units import counted

pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
LONG = tuple(
    word
    for setting in ("proxy.tokens=32k", "proxy.replicates=0", "search.dominators=0", "search.gpus=0")
    for word in ("--set", setting)
)
RUNG = 8_000
"""Tokens of the first rung, a quarter."""
CONTINUES = r"it goes on from its rung at (8,000|16,000) tokens"
Search = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The driver's machine: everything that the search reads and writes."""
    folder = tmp_path_factory.mktemp("driver")
    text = "".join(path.read_text() for path in sorted((ROOT / "hybrid_nas").glob("*.py")))
    (folder / "corpus.txt").write_text(text)
    (folder / "tiny.yaml").write_text(f"{TINY}data: corpus.txt\n")
    return folder


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Ray]:
    with Ray.cluster(tmp_path_factory.mktemp("ray")) as cluster:
        cluster.node("--num-cpus=2", "--num-gpus=1", hidden=shared if can_hide() else None)
        yield cluster


def can_hide() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture
def search(shared: Path, ray: Ray) -> Iterator[Search]:
    """The installed command on the driver's machine, left running."""
    begun: list[subprocess.Popen[str]] = []

    def begin(out: str, *arguments: str, workers: tuple[str, ...] = ("--workers", "1")) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [COMMAND, "search", "tiny.yaml", "--out", out, *workers, *arguments],
            cwd=shared,
            env={**environment(), **ray.environment, "XDG_CACHE_HOME": str(shared / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def ended(process: subprocess.Popen[str], heard: str = "") -> str:
    """All that it said, `heard` before; it must end well, and within four minutes."""
    limit = threading.Timer(240.0, process.kill)
    limit.start()
    assert process.stdout is not None
    output = heard + process.stdout.read()
    assert process.wait() == 0, output
    limit.cancel()
    return output


def told(path: Path) -> list[Any]:
    """What the trials say, but for the time they took."""
    return [
        (t.number, t.design, t.state, t.values, t.curve, t.seed, t.failure, t.implementations, t.tokens)
        for t in Run.of(path).trials()
    ]


def finished(path: Path) -> list[Trial]:
    try:
        return Run.of(path).trials()
    except ValueError:
        return []


def training(ray: Ray) -> list[int]:
    """Processes that hold or held a trial."""
    below = [pid for node in ray.nodes if node.poll() is None for pid in descendants(node.pid)]
    return [pid for pid in below if command(pid).startswith("ray::") and "Train" in command(pid)]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def running(path: Path) -> str:
    """Where the running trial stands, as the dashboard reads it."""
    try:
        run = Run.of(path)
        record = Record(run.study_file(), open_storage(run.storage()))
    except ValueError:
        return ""
    now = [t for t in record.study.get_trials(deepcopy=False) if t.state.name == "RUNNING"]
    return str(now[-1].user_attrs.get(SO_FAR, "")) if now else ""


def tokens(text: str) -> int:
    return int(text.split(" at ")[1].split()[0].replace(",", "")) if " at " in text else 0


@pytest.fixture(scope="module")
def whole(shared: Path) -> list[Any]:
    """An unbroken search of two long trials on this machine."""
    command = [COMMAND, "search", "tiny.yaml", "--out", "whole", "--workers", "1", "--trials", "2", *LONG]
    cache = {"XDG_CACHE_HOME": str(shared / "cache")}
    subprocess.run(command, cwd=shared, env={**environment(), **cache}, check=True, capture_output=True, timeout=300)
    return told(shared / "whole")


def test_begun_here_continued_on_a_cluster_and_ended_here(shared: Path, ray: Ray, search: Search) -> None:
    """One study, one record, one answer; the workers see neither the data nor the run folder."""
    ended(search("unbroken", "--trials", "6"))
    ended(search("moved", "--trials", "2", "--set", "proxy.replicates=0"))
    on_ray = search("moved", "--trials", "4", "--ray", ray.address, "--set", "proxy.replicates=0")
    assert "done already: 2 trials and 0 replicates" in ended(on_ray)
    ended(search("moved", "--trials", "6"))
    assert told(shared / "moved") == told(shared / "unbroken")
    assert json.loads((shared / "moved" / "front.json").read_text()) == json.loads(
        (shared / "unbroken" / "front.json").read_text()
    )


def test_a_killed_worker_costs_what_came_after_its_last_rung(
    shared: Path, ray: Ray, search: Search, whole: list[Any]
) -> None:
    """Killed after its rung: it goes on from there on another, the dashboard sees it run, and the bits are the same."""
    process = search("worker", "--trials", "2", *LONG, "--ray", ray.address)
    wait_for(lambda: tokens(running(shared / "worker")) > RUNG, "a trial beyond its first rung")
    os.kill(training(ray)[0], signal.SIGKILL)
    output = ended(process)
    assert re.search(rf"trial \d: its worker is gone; {CONTINUES}", output), output
    assert told(shared / "worker") == whole


def test_a_killed_driver_leaves_no_workers_and_the_same_command_continues(
    shared: Path, ray: Ray, search: Search, whole: list[Any]
) -> None:
    process = search("driver", "--trials", "2", *LONG, "--ray", ray.address)
    wait_for(lambda: bool(finished(shared / "driver")), "a trial")
    process.kill()
    process.communicate()
    before = told(shared / "driver")
    wait_for(lambda: not training(ray), "the workers to end", 60.0)
    output = ended(search("driver", "--trials", "2", *LONG, "--ray", ray.address))
    assert f"done already: {counted(len(before), 'trial')} and 0 replicates" in output
    assert told(shared / "driver") == whole


def test_a_killed_process_of_ray_tune_is_started_again(
    shared: Path, ray: Ray, search: Search, whole: list[Any]
) -> None:
    process = search("tune", "--trials", "2", *LONG, "--ray", ray.address)
    wait_for(lambda: bool(finished(shared / "tune")), "a trial")
    os.kill(named(descendants(process.pid), "hybrid_nas.ray_driver")[0], signal.SIGKILL)
    output = ended(process)
    assert "Ray's driver ended by signal SIGKILL; it starts again" in output
    assert told(shared / "tune") == whole


def test_a_trial_that_hangs_is_ended_by_its_time_limit(shared: Path, ray: Ray, search: Search) -> None:
    limit = ("--set", "search.time_limit=30s", "--set", "proxy.tokens=20k")
    process = search("hang", "--trials", "2", *LONG, *limit, "--ray", ray.address)
    wait_for(lambda: tokens(running(shared / "hang")) > 0, "a trial")
    os.kill(training(ray)[0], signal.SIGSTOP)
    output = ended(process)
    assert "took longer than its time limit of 30.0 s" in output
    first, second = Run.of(shared / "hang").trials()
    assert (first.state, second.state) == ("failed", "complete")


def test_fractions_of_a_gpu_and_what_the_cluster_lacks(shared: Path, ray: Ray, search: Search) -> None:
    """A third of a GPU each: three at a time, were there three cores; here two."""
    share = ("--set", "search.gpus=0.3", "--set", "proxy.replicates=0", "--trials", "3")
    output = ended(search("gpu", *share, "--ray", ray.address, workers=()))
    assert "3 trials on 2 workers" in output
    refused = search("no", "--set", "search.gpus=2", "--ray", ray.address)
    output, _ = refused.communicate(timeout=60)
    assert refused.returncode == 2
    assert "a worker needs 2 gpu, and the whole cluster has 1" in output
    assert not (shared / "no").exists()


def test_a_node_that_goes_gives_its_trials_to_another(
    shared: Path, ray: Ray, search: Search, whole: list[Any], tmp_path: Path
) -> None:
    """The node and all that runs on it; then one with this package's wheel, and one with another version."""
    site = tmp_path / "site"
    wheel = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*wheel, "--target", str(site), str(ROOT)], check=True, capture_output=True, timeout=120)
    process = search("node", "--trials", "2", *LONG, "--ray", ray.address)
    wait_for(lambda: tokens(running(shared / "node")) > RUNG, "a trial beyond its first rung")
    ray.end(ray.nodes[1])
    heard = ""
    while "trials wait for one" not in heard:
        assert process.stdout is not None
        heard += process.stdout.readline()
    ray.node("--num-cpus=1", PYTHONPATH=str(site))
    output = ended(process, heard)
    assert "no node of the cluster has room for a worker (1 cpu): trials wait for one" in output
    assert re.search(rf"trial \d: its (worker|node) is gone; {CONTINUES}", output), output
    assert told(shared / "node") == whole

    with (site / "hybrid_nas" / "proxy.py").open("a") as file:
        file.write("\n# another version\n")
    ray.end(ray.nodes[2])
    ray.node("--num-cpus=1", PYTHONPATH=str(site))
    arguments = ("--trials", "2", "--set", "proxy.replicates=0", "--ray", ray.address)
    time.sleep(5.0)
    refused = search("version", *arguments)
    output, _ = refused.communicate(timeout=60)
    assert refused.returncode == 2, output
    assert "has another hybrid-nas than this machine; install the same wheel on both, or let --send-code" in output
    ended(search("version", *arguments, "--send-code"))
    assert [trial.state for trial in finished(shared / "version")] == ["complete"] * 2


def test_ray_on_this_machine_listens_to_nobody_else_and_is_started_again(
    shared: Path, search: Search, whole: list[Any]
) -> None:
    """No cluster: the search starts Ray here. Then its raylet is gone, and with it all of Ray."""
    process = search("here", "--trials", "2", *LONG, "--ray")
    wait_for(lambda: bool(finished(shared / "here")), "a trial")
    below = descendants(process.pid)
    assert listening(below) in ({"127.0.0.1"}, {"127.0.0.1", "::1"})
    os.kill(named(below, "raylet/raylet")[0], signal.SIGKILL)
    output = ended(process)
    assert re.search(r"trial \d: Ray('s driver ended| lost the desk) .*; it starts again", output), output
    assert told(shared / "here") == whole
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in named(below, "ray/")), "Ray to end", 60.0)


def listening(pids: list[int]) -> set[str]:
    """The addresses at which processes listen."""
    import ipaddress

    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets.add(os.readlink(descriptor))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                raw = bytes.fromhex(words[1].split(":")[0])
                address = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
                place = ipaddress.ip_address(address)
                found.add(str(getattr(place, "ipv4_mapped", None) or place))
    return found


def test_a_text_of_symbols_comes_to_a_worker_whole(monkeypatch):
    """The vocabulary too, by which probes of text and the size of a scored batch go."""
    from hybrid_nas import ray_tune

    ids = np.arange(500, dtype=np.uint16)
    sent = Text("ids", ids, ids[::-1], "f", vocab=700, bytes_per_token=2.5)
    monkeypatch.setattr(ray_tune.ray, "get", lambda held: held)
    monkeypatch.setattr(ray_tune, "_texts", {})
    desk = SimpleNamespace(_actor_id=b"desk", text=SimpleNamespace(remote=lambda: [ray_tune.fields_of(sent)]))
    got = ray_tune.text_of(desk)
    assert (got.name, got.fingerprint, got.vocab, got.bytes_per_token) == ("ids", "f", 700, 2.5)
    assert np.array_equal(got.train, sent.train)
    assert np.array_equal(got.held_out, sent.held_out)
