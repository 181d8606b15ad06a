"""Checks that every description of a part makes of its own dimensions."""

from __future__ import annotations

from typing import Any

ADDED = {"omit": True}
"""Metadata of a field that came after its description was first published: at its default it is left out of the JSON,
so that the ids of models that do not use it stay what they were."""


def positive(part: Any, *names: str) -> None:
    """ValueError unless each of these fields of `part` is a positive whole number."""
    for name in names:
        value = getattr(part, name)
        if not isinstance(value, int) or value < 1:
            kind = getattr(part, "kind", type(part).__name__.lower())
            raise ValueError(f"{kind}: {name} must be a positive whole number, found {value!r}")


def multiple(part: Any, name: str, of: str) -> None:
    """ValueError unless the field `name` of `part` is a multiple of the field `of`."""
    whole, unit = getattr(part, name), getattr(part, of)
    if whole % unit:
        raise ValueError(f"{part.kind}: {name} must be a multiple of {of}, found {whole} and {unit}")
