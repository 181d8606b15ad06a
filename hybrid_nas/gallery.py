"""Published hybrid models, from their configurations, each with its source (published.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from hybrid_nas.architecture import Architecture
from hybrid_nas.design import Design
from hybrid_nas.export.formats import read_config
from hybrid_nas.scale_free import design_of

FILE = Path(__file__).parent / "published.json"


@dataclass(frozen=True)
class Published:
    """A published model. `notes` name all that its configuration says and `architecture` does not; `left_out` what
    `design`, which is free of scale, leaves out of it."""

    name: str
    architecture: Architecture
    context: int
    design: Design | None
    source: str
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@lru_cache
def gallery() -> dict[str, Published]:
    """Every published model by name."""
    models = {}
    for name, entry in json.loads(FILE.read_text()).items():
        _, imported = read_config(entry["config"])
        design: Design | None = None
        left_out: tuple[str, ...]
        try:
            design, left_out = design_of(imported.architecture, imported.context)
        except ValueError as error:
            left_out = (str(error),)
        notes = (*entry.get("notes", ()), *imported.notes)
        models[name] = Published(
            name, imported.architecture, imported.context, design, entry["source"], notes, left_out
        )
    return models
