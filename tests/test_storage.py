"""Where a study is recorded: each kind of storage for real, and what happens while it is away."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from servers import PostgreSQL, free_port, proxy, wait_for
from sqlalchemy.exc import OperationalError, PendingRollbackError

from hybrid_nas import storage as module
from hybrid_nas.lease import Lease
from hybrid_nas.patience import Patient, StorageAway
from hybrid_nas.run_folder import Run
from hybrid_nas.storage import close_storage, open_storage
from hybrid_nas.storage_url import resolved, without_password
from hybrid_nas.study import Record
from hybrid_nas.trial import Trial

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgreSQL]:
    with PostgreSQL.running() as server:
        yield server


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a search in the default storage finds."""
    from installed import COMMAND, TINY, environment

    folder = tmp_path_factory.mktemp("expected")
    (folder / "tiny.yaml").write_text(TINY)
    command = [COMMAND, "search", "tiny.yaml", "--out", "run", "--workers", "1"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, timeout=300)
    return told(Run(folder / "run").trials())


def told(trials: list[Trial]) -> list[Any]:
    """What a trial says, but for the time it took."""
    return [(t.number, t.design, t.state, t.values, t.curve, t.seed, t.replicate_of) for t in trials]


def test_a_storage_is_a_url(tmp_path: Path) -> None:
    assert resolved("sqlite", tmp_path) == f"sqlite:///{tmp_path}/study.db"
    assert resolved("journal", tmp_path) == f"journal:///{tmp_path}/study.journal"
    assert resolved("postgres://h/d", tmp_path) == "postgresql://h/d"
    assert resolved("grpc://[::1]:13000", tmp_path) == "grpc://[::1]:13000"
    assert without_password("postgresql://me:se:cret@h:5/d") == "postgresql://me@h:5/d"
    for wrong, message in (
        ("postgre://h/d", "did you mean 'postgresql'"),
        ("study.db", "is none of sqlite, journal"),
        ("grpc://host", "grpc://HOST:PORT must stand here"),
        ("sqlite://study.db", "three strokes"),
    ):
        with pytest.raises(ValueError, match=message):
            resolved(wrong, tmp_path)


def test_a_run_keeps_to_its_storage_and_writes_no_password(tmp_path: Path, tiny: Path) -> None:
    from hybrid_nas.study_file import read_study

    run, file = Run(tmp_path / "run"), read_study(tiny.read_text(), "tiny.yaml")
    run.begin(file, "postgresql://me:secret@h/d")
    assert (run.path / "storage").read_text() == "postgresql://me@h/d\n"
    assert run.storage() == "postgresql://me@h/d"
    assert run.storage("postgresql://me:secret@h/d") == "postgresql://me:secret@h/d"
    with pytest.raises(ValueError, match="is recorded in postgresql://me@h/d"):
        run.begin(file, "sqlite")


def test_what_cannot_be_opened_leaves_nothing(nas: Command, tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="the extra `postgresql` is not installed")
    port = free_port()
    done = nas("search", tiny, "--out", "run", "--storage", f"postgresql://me:secret@127.0.0.1:{port}/d", check=2)
    assert f"postgresql://me@127.0.0.1:{port}/d cannot be opened" in done.stderr
    assert "refused" in done.stderr
    assert "secret" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_proxy_that_does_not_answer_is_told_of_with_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc", reason="the extra `grpc` is not installed")
    monkeypatch.setattr(module, "ANSWER_S", 0.5)
    port = free_port()
    with pytest.raises(ValueError, match=f"grpc://localhost:{port} cannot be opened: nobody answers there") as told:
        open_storage(f"grpc://localhost:{port}")
    page = (Path(__file__).parent.parent / "docs/how_to/cluster.md").read_text()
    (start,) = re.findall(r"`(python -c .*run_grpc_proxy_server.*)` \|", page)
    assert str(told.value).endswith(f"start Optuna's proxy there: {start.replace('13000', str(port))}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["journal", "postgresql", "grpc"])
def test_every_storage_holds_the_same_answer(
    kind: str, nas: Command, tiny: Path, tmp_path: Path, expected: list[Any], request: pytest.FixtureRequest
) -> None:
    """A whole search, the same command again, and what a dashboard reads."""
    with proxy(f"sqlite:///{tmp_path}/behind.db") if kind == "grpc" else io.BytesIO() as port:
        url = {"grpc": f"grpc://localhost:{port}", "journal": "journal"}.get(kind)
        url = url or request.getfixturevalue("postgres").url
        nas("search", tiny, "--out", "run", "--workers", "1", "--trials", "3", "--storage", url)
        nas("search", tiny, "--out", "run", "--workers", "1", "--trials", "5")  # where it is recorded is known
        run = Run(tmp_path / "run")
        assert not (run.path / "study.db").exists()
        search = [trial for trial in told(run.trials()) if trial[-1] is None]
        assert search == [trial for trial in expected if trial[-1] is None]
        read = open_storage(run.storage())
        assert told(Record(run.study_file(), read).trials()) == told(run.trials())
        close_storage(read)
        pytest.importorskip("optuna_dashboard", reason="the extra `dashboard` is not installed")
        from hybrid_nas.dashboard import serving

        with serving(run, port=0) as address, urllib.request.urlopen(f"{address}/api/studies", timeout=60) as answer:
            names = [study["study_name"] for study in json.load(answer)["study_summaries"]]
        assert f"tiny-{run.study_file().identity}" in names


class Lossy(InMemoryStorage):
    """Does what it is asked and then loses the answer, once for each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: set[str] = set()

    def _lose(self, name: str, result: Any) -> Any:
        if name not in self.lost:
            self.lost.add(name)
            raise OperationalError("COMMIT", {}, sqlite3.OperationalError("connection lost"))
        return result

    def create_new_trial(self, *arguments: Any, **named: Any) -> int:
        return int(self._lose("create", super().create_new_trial(*arguments, **named)))

    def set_trial_state_values(self, *arguments: Any, **named: Any) -> bool:
        return bool(self._lose("tell", super().set_trial_state_values(*arguments, **named)))

    def set_trial_user_attr(self, *arguments: Any, **named: Any) -> None:
        self._lose("attribute", super().set_trial_user_attr(*arguments, **named))


def test_an_operation_whose_answer_was_lost_counts_once() -> None:
    heard: list[str] = []
    patient = Patient(Lossy())
    patient.said = heard.append
    study = optuna.create_study(storage=patient, directions=["minimize", "minimize"])
    first, second = study.ask(), study.ask()
    first.set_user_attr("layout", "AM")
    study.tell(first, [1.0, 2.0])
    study.tell(second, state=optuna.trial.TrialState.FAIL)
    patient.inner.lost.discard("create")  # type: ignore[attr-defined]
    study.add_trial(optuna.trial.create_trial(values=[3.0, 4.0]))
    assert [trial.values for trial in study.trials] == [[1.0, 2.0], None, [3.0, 4.0]]
    assert study.trials[0].user_attrs == {"layout": "AM"}
    assert [line.split(";")[0] for line in heard] == [
        "storage: connection lost", "storage: back after 0.1 s",
    ] * 4  # fmt: skip


def test_patience_ends_and_a_users_mistake_is_not_waited_for() -> None:
    class Away(InMemoryStorage):
        def get_all_studies(self) -> Any:
            raise OperationalError("SELECT", {}, sqlite3.OperationalError("unable to open database file"))

    with pytest.raises(StorageAway, match="unable to open database file"):
        Patient(Away(), patience=0.0).get_all_studies()
    patient = Patient(Away())
    patient.stop = lambda: True
    with pytest.raises(StorageAway):
        patient.get_all_studies()
    with pytest.raises(KeyError):
        Patient(InMemoryStorage()).get_study_id_from_name("none")


def test_a_connection_lost_between_two_queries_of_one_operation_is_waited_for() -> None:
    """Optuna goes on with the session after the failure; SQLAlchemy refuses, with no word of the loss."""

    class Halfway(InMemoryStorage):
        tries = 0

        def get_all_studies(self) -> Any:
            Halfway.tries += 1
            if Halfway.tries > 1:
                return super().get_all_studies()
            try:
                try:
                    raise OperationalError("SELECT", {}, sqlite3.OperationalError("server closed the connection"))
                except OperationalError:
                    raise PendingRollbackError("Can't reconnect until invalid transaction is rolled back") from None
            except PendingRollbackError as error:
                raise optuna.exceptions.StorageInternalError("An exception is raised during the commit") from error

    heard: list[str] = []
    patient = Patient(Halfway())
    patient.said = heard.append
    assert patient.get_all_studies() == []
    assert heard[0] == "storage: server closed the connection; waiting for it, trainings go on"


def test_a_locked_sqlite_file_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHIFT_S", 0.1)
    heard: list[str] = []
    patient = Patient(open_storage(f"sqlite:///{tmp_path}/study.db"))
    patient.said = heard.append
    study = optuna.create_study(storage=patient)
    study.tell(study.ask(), 1.0)
    other = sqlite3.connect(tmp_path / "study.db", check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    let_go = threading.Timer(1.0, other.rollback)
    let_go.start()
    begin = time.monotonic()
    study.tell(study.ask(), 2.0)
    assert time.monotonic() - begin > 0.9
    assert [trial.value for trial in study.trials] == [1.0, 2.0]
    assert heard[0] == "storage: database is locked; waiting for it, trainings go on"
    assert heard[-1].startswith("storage: back after")
    let_go.join()
    other.close()
    patient.remove_session()


def test_half_a_line_of_a_journal_is_nobodys_and_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.journal"
    url = f"journal://{'/' + str(path)}"
    study = optuna.create_study(storage=open_storage(url), study_name="s")
    study.tell(study.ask(), 1.0)
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"killed in the mid')
    again = optuna.load_study(storage=open_storage(url), study_name="s")
    again.tell(again.ask(), 2.0)
    assert path.read_bytes().startswith(whole)
    assert [trial.value for trial in optuna.load_study(storage=open_storage(url), study_name="s").trials] == [1.0, 2.0]

    heard: list[str] = []
    patient = Patient(open_storage(url))
    patient.said = heard.append
    third = optuna.load_study(storage=patient, study_name="s")
    fsync, full = os.fsync, [True, True, True]

    def no_room(descriptor: int) -> None:
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_room)
    third.tell(third.ask(), 3.0)
    trials = optuna.load_study(storage=open_storage(url), study_name="s").trials
    assert [trial.value for trial in trials] == [1.0, 2.0, 3.0]
    assert heard[0] == "storage: [Errno 28] No space left on device; waiting for it, trainings go on"


def test_one_search_a_study(tmp_path: Path) -> None:
    """A second one is refused while the first lives, wherever it is, and takes over once its number stands still."""
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=open_storage(url), study_name="s")._study_id
    with Lease(open_storage(url), study, beat=0.1, still=1.0):
        elsewhere = Lease(open_storage(url), study, beat=0.1, still=1.0)
        with pytest.raises(ValueError, match=f"another search is at work on this study: process {os.getpid()} on"):
            elsewhere.__enter__()
    with Lease(open_storage(url), study, beat=0.1, still=1.0) as first:
        first._done.set()  # its machine is gone, and says nothing any more
        first._thread.join()
        begin = time.monotonic()
        with Lease(open_storage(url), study, beat=0.1, still=1.0) as second:
            assert time.monotonic() - begin > 0.9
            assert not second.lost
            first._done.clear()
            first._follow()
            assert first.lost  # it comes back, sees who holds the study now, and lets go
    dead = subprocess.Popen(["true"])
    dead.wait()
    first.me["pid"] = dead.pid
    first._beat()
    begin = time.monotonic()
    with Lease(open_storage(url), study, beat=0.1, still=60.0):
        assert time.monotonic() - begin < 10.0  # a dead process of this machine is not waited for


@pytest.mark.slow
def test_postgresql_gone_and_back_in_the_middle_of_a_search(
    nas: Command, start: Start, tiny: Path, tmp_path: Path, postgres: PostgreSQL
) -> None:
    arguments = ("search", tiny, "--workers", "1", "--trials", "6", "--seed", "1", "--set", "proxy.tokens=4k")
    nas(*arguments, "--out", "whole")
    process = start(*arguments, "--out", "run", "--storage", postgres.url)
    run = tmp_path / "run"
    assert process.stdout is not None
    said = list[str]()
    reader = threading.Thread(target=said.extend, args=(process.stdout,))
    reader.start()
    wait_for(lambda: (run / "trials.parquet").is_file(), "a trial")
    postgres.stop()
    wait_for(lambda: any("waiting for it, trainings go on" in line for line in said), "the search to miss its storage")
    time.sleep(1.0)
    postgres.start()
    assert process.wait(timeout=200) == 0, said
    reader.join()
    process.stdout.close()
    assert any("storage: back after" in line for line in said), said
    assert told(Run(run).trials()) == told(Run(tmp_path / "whole").trials())


@pytest.mark.slow
def test_a_full_disk_is_waited_for(start: Start, nas: Command, tiny: Path, tmp_path: Path) -> None:
    """The run folder on a disk of 8 MB that something else fills, and leaves again."""
    arguments = ("search", tiny, "--workers", "1", "--seed", "2", "--set", "proxy.tokens=4k", "--trials", "6")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small disk can be made by root alone")
    try:
        process = start(*arguments, "--out", disk / "run")
        wait_for(lambda: (disk / "run" / "trials.parquet").is_file(), "a trial")
        ballast = os.open(disk / "ballast", os.O_CREAT | os.O_WRONLY)
        with contextlib.suppress(OSError):
            while os.write(ballast, bytes(4096)):
                pass
        os.close(ballast)
        heard = []
        assert process.stdout is not None
        for line in process.stdout:
            heard.append(line)
            if "waiting for it" in line:
                break
        assert "disk" in heard[-1], heard
        (disk / "ballast").unlink()
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        nas(*arguments, "--out", "whole")
        assert told(Run(disk / "run").trials()) == told(Run(tmp_path / "whole").trials())
    finally:
        shutil.rmtree(disk / "run", ignore_errors=True)
        subprocess.run(["umount", str(disk)], check=True)
