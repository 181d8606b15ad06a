"""The keys of a search space in YAML: what each may hold, in which words an error says so, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hybrid_nas.design import PLACEMENTS, Ratio
from hybrid_nas.space import POSITIONS, Option, SearchSpace, positions_text
from hybrid_nas.yaml_file import Item, nearest


@dataclass(frozen=True)
class Key:
    """One key of the space: how one option is read, what it means, and the schema of one option."""

    parse: Callable[[Item], Option]
    meaning: str
    schema: dict[str, Any] = field(default_factory=dict)


def _ratio(item: Item) -> Option:
    try:
        return str(Ratio.parse(item.text))
    except ValueError as error:
        raise item.error(f"ratio: {error}") from None


def _placement(item: Item) -> Option:
    if isinstance(item.value, list):
        positions = []
        for child in item.value:
            if isinstance(child.value, bool) or not isinstance(child.value, int | float) or not 0 <= child.value <= 1:
                raise item.error(
                    f"placement: a position lies between 0 (first layer) and 1 (last), found {child.shown()}"
                )
            positions.append(float(child.value))
        if not positions:
            raise item.error("placement: an explicit placement needs at least one position, found []")
        if len(set(positions)) < len(positions):
            raise item.error(f"placement: a position stands twice in {item.shown()}")
        return positions_text(tuple(positions))
    if isinstance(item.value, int | float) and not isinstance(item.value, bool):
        raise item.error(
            f"placement: explicit positions are a list of their own, found {item.shown()}; write [[{item.text}]]"
        )
    if item.value not in PLACEMENTS:
        raise item.error(f"placement: unknown placement {item.shown()}; {nearest(str(item.value), PLACEMENTS)}")
    return str(item.value)


def _whole(name: str, step: int) -> Callable[[Item], Option]:
    def parse(item: Item) -> Option:
        value = item.value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % step or value > 65_536:
            near = ""
            if isinstance(value, int | float) and not isinstance(value, bool):
                near = f"; the nearest is {min(65_536, max(step, step * round(value / step)))}"
            raise item.error(
                f"{name}: a multiple of {step} from {step} to 65536 must stand here, found {item.shown()}{near}"
            )
        return value

    return parse


def _share(item: Item) -> Fraction | None:
    try:
        return Fraction(item.text)
    except (ValueError, ZeroDivisionError):
        return None


def _kv_heads(item: Item) -> Option:
    share = _share(item)
    if share is None or not 0 < share <= 1:
        raise item.error(
            "kv_heads: a share of the attention heads above 0 and up to 1, like 1/4, must stand here, "
            f"found {item.shown()}" + ("; 1/N of the heads is written 1/N" if share is not None and share > 1 else "")
        )
    return str(share)


def _position(item: Item) -> Option:
    if item.value not in ("rope", "none"):
        raise item.error(f"position: rope or none must stand here, found {item.shown()}")
    return str(item.value)


def _tokens(name: str) -> Callable[[Item], Option]:
    def parse(item: Item) -> Option:
        if item.value is None or item.value == "none":
            return "none"
        share = _share(item)
        if share is not None and 0 < share < 1:
            return str(share)
        if isinstance(item.value, int) and not isinstance(item.value, bool) and item.value >= 1:
            return item.value
        raise item.error(
            f"{name}: none, a share of the context below 1 (1/16) or a number of tokens must stand here, "
            f"found {item.shown()}"
        )

    return parse


_TOKENS_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^(none|[0-9]+/[0-9]+)$"}]}

KEYS: dict[str, Key] = {
    "ratio": Key(
        _ratio,
        "attention : Mamba layers; 1:0 is pure attention, 0:1 pure Mamba",
        {"type": "string", "pattern": "^[0-9]+:[0-9]+$"},
    ),
    "placement": Key(
        _placement,
        "where the attention layers stand: runs at the front, middle or end, spread evenly, or a list of positions "
        "from 0 (first layer) to 1 (last), which fixes their number too",
        {
            "anyOf": [
                {"enum": list(PLACEMENTS)},
                {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 1},
            ]
        },
    ),
    "d_state": Key(
        _whole("d_state", 8), "Mamba-2 state size per channel", {"type": "integer", "minimum": 8, "multipleOf": 8}
    ),
    "head_dim": Key(
        _whole("head_dim", 8), "channels of a Mamba-2 head", {"type": "integer", "minimum": 8, "multipleOf": 8}
    ),
    "kv_heads": Key(
        _kv_heads,
        "share of the attention heads that keep keys and values of their own",
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                {"type": "string", "pattern": "^[0-9]+/[0-9]+$"},
            ]
        },
    ),
    "position": Key(_position, "position encoding of the attention layers", {"enum": ["rope", "none"]}),
    "window": Key(
        _tokens("window"),
        "sliding window of the attention layers: none, a share of the context (1/16) or a number of tokens",
        _TOKENS_SCHEMA,
    ),
    "sinks": Key(
        _tokens("sinks"), "first tokens that stay visible beside the window: none, a share or a number", _TOKENS_SCHEMA
    ),
}


def read_space(name: str, entries: dict[str, Item], root: Item) -> SearchSpace:
    """The space that these entries of a study file hold. FileError where one of them cannot be meant."""
    options: dict[str, tuple[Option, ...]] = {}
    for key, item in entries.items():
        members = list(item)
        if not members:
            raise item.error(
                f"{key}: the list is empty, so nothing can be chosen; leave the key out to take the default"
            )
        if isinstance(item.value, dict):
            raise item.error(f"{key}: a value or a list of values must stand here, found a mapping")
        parse = KEYS[key].parse
        options[key] = tuple(dict.fromkeys(parse(_at(member, item)) for member in members))
    _explicit_positions(options, entries, root)
    _unused(options, entries)
    return SearchSpace(name, options)


def _at(member: Item, item: Item) -> Item:
    return member if member.line is not None else Item(member.value, item.source, item.line, member.text)


def _explicit_positions(options: dict[str, tuple[Option, ...]], entries: dict[str, Item], root: Item) -> None:
    """Explicit placements fix the number of attention layers, so they stand beside the ratios, as one more answer."""
    explicit = tuple(p for p in options.get("placement", ()) if p not in PLACEMENTS)
    named = tuple(p for p in options.get("placement", ()) if p in PLACEMENTS)
    if "ratio" not in options and not explicit:
        raise root.error("the space has no ratio; write one, like ratio: [1:3, 1:5]")
    if not explicit:
        return
    mixed = [r for r in options.get("ratio", ()) if Ratio.parse(str(r)).mixed]
    if mixed and not named:
        raise entries["placement"].error(
            f"placement: positions fix the number of attention layers by themselves, so ratio {mixed[0]} has no "
            "placement left; leave that ratio out, or add front, middle, end or spread"
        )
    options["ratio"] = (*options.get("ratio", ()), POSITIONS)
    options[POSITIONS] = explicit
    if named:
        options["placement"] = named
    else:
        del options["placement"]


def _unused(options: dict[str, tuple[Option, ...]], entries: dict[str, Item]) -> None:
    """A key that no design of the space would use is a mistake in the file, not a default."""
    ratios = [None if r == POSITIONS else Ratio.parse(str(r)) for r in options["ratio"]]
    attention = any(r is None or r.attention for r in ratios)
    mamba = any(r is None or r.mamba for r in ratios)
    mixed = any(r is None or r.mixed for r in ratios)
    needs = {
        "placement": (mixed, "a ratio that mixes both kinds"),
        "d_state": (mamba, "a ratio with Mamba"),
        "head_dim": (mamba, "a ratio with Mamba"),
        "kv_heads": (attention, "a ratio with attention"),
        "position": (attention, "a ratio with attention"),
        "window": (attention, "a ratio with attention"),
        "sinks": (any(w != "none" for w in options.get("window", ())), "a window"),
    }
    for key, (used, what) in needs.items():
        if key in entries and not used:
            raise entries[key].error(f"{key} means nothing in this space: it needs {what}")
