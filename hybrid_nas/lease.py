"""The right to search a study: one search at a time, wherever its storage is reached from.

The holder writes a number that grows, every few seconds. Who finds a holder waits to see whether the number still
grows; no clock of another machine is read. A holder on this machine that is dead is seen at once.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage

from hybrid_nas.patience import passing

KEY = "hybrid_nas:search"
BEAT_S = 5.0
STILL_S = 16.0
"""A holder whose number stands still for so long is gone."""


class Lease:
    """Holds a study of a storage while it is entered. ValueError if another search is at work on it."""

    def __init__(self, storage: BaseStorage, study: int, beat: float = BEAT_S, still: float = STILL_S) -> None:
        self.storage, self.study = storage, study
        self.beat_s, self.still_s = beat, still
        host, place = platform.node(), _place()
        self.me: dict[str, Any] = {"id": uuid.uuid4().hex, "host": host, "place": place, "pid": os.getpid()}
        self.count = 0
        self.lost = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Lease:
        found = self._holder()
        if found and not self._dead_here(found):
            end = time.monotonic() + self.still_s
            while time.monotonic() < end:
                time.sleep(min(self.beat_s, self.still_s) / 4)
                if (now := self._holder()) is None:
                    break
                if now != found:
                    raise ValueError(
                        f"another search is at work on this study: process {now['pid']} on {now['host']}; wait for it, "
                        "or let it go with Ctrl-C there"
                    )
        self._beat()
        if self._holder() != {**self.me, "beat": self.count}:
            raise ValueError("another search took this study up at the same moment; wait for it")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join(timeout=self.beat_s)
        if not self.lost:
            try:
                self.storage.set_study_system_attr(self.study, KEY, None)
            except Exception as error:
                if not passing(error):
                    raise

    def _holder(self) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.storage.get_study_system_attrs(self.study).get(KEY)
        return found

    def _dead_here(self, found: dict[str, Any]) -> bool:
        return bool(found["place"] == self.me["place"] and not Path(f"/proc/{found['pid']}").exists())

    def _beat(self) -> None:
        self.count += 1
        self.storage.set_study_system_attr(self.study, KEY, {**self.me, "beat": self.count})

    def _follow(self) -> None:
        while not self._done.wait(self.beat_s):
            try:
                holder = self._holder()
                if holder is None or holder["id"] != self.me["id"]:
                    self.lost = True
                    return
                self._beat()
            except Exception as error:  # noqa: BLE001  a storage that is away is for the search to say
                if not passing(error):
                    self.lost = True
                    return
        self.storage.remove_session()


def _place() -> str:
    """Where process ids mean the same: this boot of this machine, and this namespace of ids on it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{platform.node()}/{uuid.uuid4().hex}"  # unknown: nobody here is taken for dead
