"""What the tables.py of every study shares: tables between marker comments of a README, and run.py as a module."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

Made = Callable[[Any], str]
"""From a study's rows, its trials or the lines of its results, to a table or a sentence."""


def written(readme: str, rows: Any, tables: Mapping[str, Made]) -> str:
    """`readme` with what each of `tables` makes of the rows between its markers. ValueError where one is missing."""
    for name, made in tables.items():
        before, after = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        count = len(re.findall(re.escape(before) + ".*?" + re.escape(after), readme, flags=re.S))
        if count != 1:
            raise ValueError(f"README.md: the markers of {name} must stand once, found {count}")
        start, end = readme.index(before) + len(before), readme.index(after)
        readme = f"{readme[:start]}{made(rows)}\n{readme[end:]}"
    return readme


def write(folder: Path, rows: Any, tables: Mapping[str, Made]) -> None:
    """Put the tables into the README of a study's folder."""
    readme = folder / "README.md"
    readme.write_text(written(readme.read_text(), rows, tables))


def run_of(folder: Path) -> ModuleType:
    """The run.py of a study's folder, which says what was trained."""
    spec = importlib.util.spec_from_file_location(f"{folder.name}_run", folder / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
