"""A file, or folder, that one command at a time is at work on."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held(lock: Path, told: str) -> Iterator[None]:
    """Hold `lock`, a file that is made and taken away again. ValueError(`told`) where another process holds it. The
    lock dies with its process: a file that a killed one left holds nobody up."""
    while True:
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(told) from None
            if not _is(lock, file.fileno()):
                continue  # its last holder took it away after it was opened here
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def alone_at(path: Path, told: str) -> Iterator[None]:
    """Hold the file at `path` as `held`, by a lock beside it. Its folder is made, and goes again if it stays empty."""
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with held(path.with_name(f".{path.name}.lock"), told):
            yield
    finally:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
