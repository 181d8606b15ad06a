"""Servers for the tests, started for real on loopback ports with folders to throw away: PostgreSQL, gRPC, Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited too long for {what}"
        time.sleep(0.05)


@dataclass
class PostgreSQL:
    """A server on a loopback port. `initdb` refuses root, so root's runs as somebody else."""

    folder: Path
    programs: Path
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"postgresql://nas@127.0.0.1:{self.port}/postgres"

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[PostgreSQL]:
        pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        where = shutil.which("initdb") or (str(found[-1]) if found else None)
        if where is None:
            pytest.skip("PostgreSQL's server is not installed (Debian's package postgresql)")
        with tempfile.TemporaryDirectory() as name:  # not in pytest's folder, which is closed to other users
            server = cls(Path(name), Path(where).parent)
            if os.getuid() == 0:
                shutil.chown(name, "nobody")
            server._run("initdb", "-A", "trust", "-U", "nas", "-D", f"{name}/data", "--no-sync")
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-l", log, "-w", "-t", "60", "-o", options, "start")

    def stop(self) -> None:
        """At once, as when its machine fails."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, name: str, *arguments: str) -> None:
        as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.getuid() == 0 else []
        with (self.folder / f"{name}.log").open("ab") as log:  # a pipe would stay open as long as the server runs
            done = subprocess.run(
                [*as_nobody, str(self.programs / name), *arguments], cwd="/", stdout=log, stderr=log, timeout=120
            )
        assert done.returncode == 0, (self.folder / f"{name}.log").read_text()


@contextlib.contextmanager
def proxy(url: str) -> Iterator[int]:
    """Optuna's gRPC proxy in front of a storage, as the page of the cluster starts it; its port."""
    pytest.importorskip("grpc", reason="the extra `grpc` is not installed")
    port = free_port()
    line = (
        "from optuna.storages import RDBStorage, run_grpc_proxy_server; "
        f"run_grpc_proxy_server(RDBStorage({url!r}), host='localhost', port={port})"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@dataclass
class Ray:
    """A cluster of real nodes: a head that trains nothing, and others."""

    home: Path
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.2:{self.port}"

    @classmethod
    @contextlib.contextmanager
    def cluster(cls, home: Path, port: int | None = None) -> Iterator[Ray]:
        """The head. Ray's token, which keeps others out, lies in HOME."""
        pytest.importorskip("ray", reason="the extra `ray` is not installed")
        environment = {**os.environ, "HOME": str(home)}
        ray = cls(home, environment, port or free_port())
        ray._start("--head", f"--port={ray.port}", "--num-cpus=0", "--include-dashboard=false", "--disable-usage-stats")
        try:
            yield ray
        finally:
            for node in ray.nodes:
                ray.end(node)

    def node(self, *more: str, hidden: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """One more node; `hidden`: a folder that it sees empty, as if it were another machine."""
        return self._start(f"--address={self.address}", *more, hidden=hidden, **environment)

    def _start(self, *arguments: str, hidden: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
        place = f"--node-ip-address=127.0.0.{len(self.nodes) + 2}"  # as if each were a machine
        command = [str(Path(sysconfig.get_path("scripts")) / "ray"), "start", "--block", place, *arguments]
        if hidden is not None:
            words = " ".join(f"'{word}'" for word in command)
            command = ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none '{hidden}' && exec {words}"]
        log = self.home / f"node{len(self.nodes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env={**self.environment, **environment},
                cwd="/",
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.nodes.append(process)
        wait_for(lambda: "Ray runtime started" in log.read_text(), "a node of the Ray cluster")
        return process

    @staticmethod
    def end(node: subprocess.Popen[bytes]) -> None:
        """Kill a node and everything that runs on it, as when a machine loses its power."""
        for pid in [*descendants(node.pid), node.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()


def parents() -> dict[int, int]:
    """pid -> parent, of the processes that live."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            found[int(entry.parent.name)] = int(fields[1])
    return found


def descendants(pid: int) -> list[int]:
    tree = parents()
    found = [pid]
    for one in found:
        found += [child for child, parent in tree.items() if parent == one]
    return found[1:]


def named(pids: list[int], what: str) -> list[int]:
    """Those whose command line holds `what`."""
    kept = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if what in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                kept.append(pid)
    return kept
