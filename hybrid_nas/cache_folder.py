"""The user's cache ($XDG_CACHE_HOME/hybrid-nas, or ~/.cache/hybrid-nas): folders that are made once, whole or not at
all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hybrid-nas"


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `folder` at the end; gone where the writing breaks off. Of two writers at a
    time the second one's copy is dropped."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        yield aside
        try:
            aside.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
