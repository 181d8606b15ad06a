"""Neural architecture search for hybrid language models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hybrid_nas.loaded import LoadedRun

__version__ = "0.1.0"
__all__ = ["load_run"]


def load_run(path: str | Path | None = None) -> LoadedRun:
    """A run's trials as an Arrow table, its front, recipe and figures; the latest under runs/ without `path`."""
    from hybrid_nas.loaded import load_run as load

    return load(path)
