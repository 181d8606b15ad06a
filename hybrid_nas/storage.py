"""Opening a study's storage: Optuna's, made to survive full disks and killed writers."""

from __future__ import annotations

import fcntl
import os
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, _CachedStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from hybrid_nas.patience import reason
from hybrid_nas.storage_url import without_password
from hybrid_nas.units import duration

SHIFT_S = 60.0
"""How long one SQLite operation waits for another process to let the file go."""

ANSWER_S = 15.0
"""How long Optuna's proxy may take to answer."""


def open_storage(url: str) -> BaseStorage:
    """The storage at a URL that `resolved` gave. ValueError says why it cannot be opened."""
    kind, _, rest = url.partition("://")
    try:
        match kind:
            case "journal":
                return JournalStorage(WholeLines(rest[1:]))
            case "grpc":
                return _proxy(rest.rstrip("/"))
            case "postgresql":
                return _CachedStorage(_postgresql(url))
            case _:
                path = URL.create("sqlite", database=rest[1:]).render_as_string(hide_password=False)
                engine = {"connect_args": {"timeout": SHIFT_S}}
                return _CachedStorage(RDBStorage(path, engine_kwargs=engine))
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, OSError, RuntimeError) as error:
        raise ValueError(f"storage: {without_password(url)} cannot be opened: {reason(error)}") from error


def close_storage(storage: BaseStorage) -> None:
    """Let go of connections; the storage itself is not touched."""
    storage.remove_session()
    if isinstance(storage, _CachedStorage):
        storage._backend.engine.dispose()
    elif isinstance(storage, optuna.storages.GrpcStorageProxy):
        storage.close()


def _postgresql(url: str) -> RDBStorage:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"storage: PostgreSQL needs the package psycopg ({error}): pip install 'hybrid-nas[postgresql]'"
        ) from error
    try:
        address = make_url(url).set(drivername="postgresql+psycopg")
    except ArgumentError as error:
        raise ValueError(f"storage: {without_password(url)!r} is no PostgreSQL URL: {error}") from error
    return RDBStorage(
        address.render_as_string(hide_password=False),
        engine_kwargs={"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}},
    )


def _proxy(address: str) -> BaseStorage:
    try:
        import grpc  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"storage: Optuna's proxy needs the package grpcio ({error}): pip install 'hybrid-nas[grpc]'"
        ) from error
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = optuna.storages.GrpcStorageProxy(host=host, port=int(port))
    try:
        storage.wait_server_ready(timeout=ANSWER_S)
    except ConnectionError as error:
        storage.close()
        raise ValueError(
            f"storage: grpc://{address} cannot be opened: nobody answers there (waited {duration(ANSWER_S)}); "
            "start Optuna's proxy there: "
            'python -c "from optuna.storages import RDBStorage, run_grpc_proxy_server as run; '
            f"run(RDBStorage('sqlite:///study.db'), host='{host}', port={port})\""
        ) from error
    return storage


class _Flock(JournalFileOpenLock):
    """A lock that the kernel lets go when its holder dies."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}.lock"
        self.file: int | None = None

    def acquire(self) -> bool:
        descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        self.file = descriptor
        return True

    def release(self) -> None:
        assert self.file is not None
        os.close(self.file)
        self.file = None


class WholeLines(JournalFileBackend):
    """Optuna's journal file, of whole lines even after a full disk or a kill in the middle of a line.

    Half a line was confirmed to nobody, so the next writer cuts it off instead of writing on behind it.
    """

    def __init__(self, path: str) -> None:
        self._flock = _Flock(path)
        self._path = Path(path)
        super().__init__(path, self._flock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._cut()
        try:
            super().append_logs(logs)
        except OSError:
            self._cut()
            raise

    def _cut(self) -> None:
        self._flock.acquire()
        try:
            with self._path.open("r+b") as file:
                size = end = file.seek(0, os.SEEK_END)
                while end:
                    begin = max(0, end - 4096)
                    file.seek(begin)
                    last = file.read(end - begin).rfind(b"\n")
                    end = begin + last + 1 if last >= 0 else begin
                    if last >= 0:
                        break
                if end < size:
                    file.truncate(end)
        finally:
            self._flock.release()
