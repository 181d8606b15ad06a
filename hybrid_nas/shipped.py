"""The search spaces that come with the package, and how a space is found by path or by name."""

from __future__ import annotations

from pathlib import Path

from hybrid_nas.yaml_file import nearest

SUFFIXES = (".yaml", ".yml")


def folder() -> Path:
    """Where the shipped spaces are: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def shipped() -> dict[str, Path]:
    """Shipped spaces by name (the file's stem)."""
    return {path.stem: path for path in sorted(folder().glob("*.yaml"))}


def find(name: str) -> Path:
    """The file that `name` means: a path that exists, else the shipped space of that stem, whatever folder is named.

    ValueError names the nearest shipped space.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise ValueError(f"{name} is a folder; a space is one YAML file")
    if path.is_absolute():
        raise ValueError(f"{name}: no such file")
    stem = path.stem if path.suffix in SUFFIXES else path.name
    spaces = shipped()
    for candidate in (stem, stem.replace("-", "_")):
        if candidate in spaces:
            return spaces[candidate]
    raise ValueError(f"{name}: no such file, and no shipped space of that name; {nearest(stem, spaces)}")
