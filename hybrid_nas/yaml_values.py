"""Values of a study file: counts with units, times, and the fields of a dataclass by their types."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from hybrid_nas.yaml_file import Item

UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
COUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([kmbg]?|[kmg]ib)", re.IGNORECASE)
LARGEST_COUNT = 1e24

TIMES = {"s": 1, "min": 60, "h": 3600, "d": 86400}
TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h|d)?")


def count_of(item: Item, key: str) -> int:
    """A whole number, or one with a unit: 200k, 1.5M, 1B, 64 MiB."""
    match = COUNT.fullmatch(item.text.strip()) if isinstance(item.value, str) else None
    value: float | None = None
    if match:
        value = float(match[1]) * UNITS[match[2].lower()]
    elif isinstance(item.value, int | float) and not isinstance(item.value, bool):
        value = float(item.value)
    if value is None or not 0 <= value < LARGEST_COUNT or value != int(value):
        raise item.error(
            f"{key}: a whole number, or one like 200k, 1.5M or 64 MiB, below 1e24 must stand here, found {item.shown()}"
        )
    return int(value)


def seconds_of(item: Item, key: str) -> float:
    """A time above 0: seconds, or one with a unit: 90s, 10min, 2h."""
    match = TIME.fullmatch(str(item.value).strip())
    if match is None or not (seconds := float(match[1]) * TIMES[match[2] or "s"]):
        raise item.error(f"{key}: a time like 90s, 10min or 2h must stand here, found {item.shown()}")
    return seconds


def field_of(cls: type, key: str, item: Item) -> Any:
    """The value for a dataclass field of that name, by the field's type."""
    kind = str(next(field.type for field in fields(cls) if field.name == key))
    if kind.startswith("tuple[str"):
        members = item.value if isinstance(item.value, list) else [item]
        return tuple(_name_of(member, key, item) for member in members)
    if isinstance(item.value, list):
        if not kind.startswith("tuple"):
            raise item.error(f"{key}: one value must stand here, found a list; only the space's keys are choices")
        return tuple(number_of(child, key, item) for child in item.value)
    if kind.startswith("tuple"):
        return (number_of(item, key, item),)
    if item.value is None and "None" in kind:
        return None
    if kind.startswith("int"):
        return count_of(item, key)
    return number_of(item, key, item) if kind.startswith("float") else item.value


def _name_of(item: Item, key: str, at: Item) -> str:
    if not isinstance(item.value, str):
        raise at.error(f"{key}: names must stand here, found {item.shown()}")
    return item.value


def number_of(item: Item, key: str, at: Item) -> float:
    if isinstance(item.value, bool) or not isinstance(item.value, int | float):
        raise at.error(f"{key}: a number must stand here, found {item.shown()}")
    return float(item.value)


def built_of(cls: type, entries: dict[str, Item], item: Item, default: Any) -> Any:
    """`default` with the entries of a mapping as fields; what the class itself refuses is an error at its key."""
    values = {key: field_of(cls, key, entry) for key, entry in entries.items()}
    try:
        return replace(default, **values)
    except (ValueError, TypeError) as error:
        places = [entry for key, entry in entries.items() if key in str(error)]
        raise (places[0] if places else item).error(str(error)) from None
