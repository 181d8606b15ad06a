"""A design file: one model as JSON, with where it comes from; what `import` writes and `export` leaves beside a model.

`architecture` is the exact model; `design`, where there is one, is what it is free of scale, so that it can be built
at another scale; `notes` name what of the source could not be expressed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_nas.architecture import Architecture
from hybrid_nas.design import Design

KEYS = ("version", "name", "source", "context", "architecture", "design", "notes")
NAME = "hybrid_nas.json"


@dataclass(frozen=True)
class DesignFile:
    """`context` is the number of tokens that the model is meant for."""

    name: str
    architecture: Architecture
    context: int
    design: Design | None = None
    source: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        data: dict[str, Any] = {
            "version": 1,
            "name": self.name,
            "source": self.source,
            "context": self.context,
            "architecture": self.architecture.to_dict(),
            "design": None if self.design is None else self.design.to_dict(),
            "notes": list(self.notes),
        }
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> DesignFile:
        """ValueError names the file and what must hold."""
        try:
            data = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not JSON ({error}); a design file is what `hybrid-nas import` writes") from None
        return cls.of(data, str(path))

    @classmethod
    def of(cls, data: Any, source: str) -> DesignFile:
        if not isinstance(data, dict) or "architecture" not in data:
            raise ValueError(f"{source}: no design file (it has no architecture); `hybrid-nas import` makes one")
        if data.get("version") != 1:
            raise ValueError(f"{source}: version must be 1, found {data.get('version')!r}")
        if unknown := sorted(data.keys() - set(KEYS)):
            raise ValueError(f"{source}: unknown key {unknown[0]!r}; known: {', '.join(KEYS)}")
        try:
            return cls(
                name=str(data["name"]),
                architecture=Architecture.from_dict(data["architecture"]),
                context=int(data["context"]),
                design=None if data.get("design") is None else Design.from_dict(data["design"]),
                source=str(data.get("source", "")),
                notes=tuple(map(str, data.get("notes", ()))),
            )
        except (KeyError, TypeError, ValueError) as error:
            what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{source}: {what}") from None
