"""The keys of a search space in YAML: what each may hold, in which words an error says so, and its JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from hybrid_nas.answers import positions_text
from hybrid_nas.architecture import PARALLEL_AXES
from hybrid_nas.design import PLACEMENTS, Ratio
from hybrid_nas.halves import HALVES
from hybrid_nas.parts import FEED_FORWARD, RECURRENT
from hybrid_nas.placement import SYNONYMS, read_layout, read_share
from hybrid_nas.questions import LAYOUT, PRESETS, Option
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
    name = SYNONYMS.get(str(item.value), item.value)
    if name not in PLACEMENTS:
        known = (*PLACEMENTS, *SYNONYMS)
        raise item.error(f"placement: unknown placement {item.shown()}; {nearest(str(item.value), known)}")
    return str(name)


def _layout(item: Item) -> Option:
    try:
        return read_layout(item.text)
    except ValueError as error:
        raise item.error(f"layout: {error}") from None


def _one_of(name: str, known: Collection[str]) -> Callable[[Item], Option]:
    def parse(item: Item) -> Option:
        value = "none" if item.value is None and "none" in known else item.value
        if not isinstance(value, str) or value not in known:
            raise item.error(f"{name}: unknown {name} {item.shown()}; {nearest(str(item.value), known)}")
        return str(value)

    return parse


def _attention_share(item: Item) -> Option:
    share = _share(item)
    if share is None or not 0 <= share <= 1:
        raise item.error(f"attention_share: a share from 0 to 1, like 1/2, must stand here, found {item.shown()}")
    return str(share)


def _width(name: str) -> Callable[[Item], Option]:
    def parse(item: Item) -> Option:
        share = _share(item)
        if share is not None and (share <= 2 if name == "value_width" else share <= 1) and share >= 0:
            return str(share)
        if isinstance(item.value, int) and not isinstance(item.value, bool) and 8 <= item.value <= 65_536:
            return item.value
        raise item.error(
            f"{name}: a share of the model's width, like 9/16, or a number of channels from 8 must stand here, "
            f"found {item.shown()}"
        )

    return parse


def _whole(name: str, step: int) -> Callable[[Item], Option]:
    def parse(item: Item) -> Option:
        value = item.value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % step or value > 65_536:
            near = ""
            if isinstance(value, int | float) and not isinstance(value, bool):
                near = f"; the nearest is {min(65_536, max(step, step * round(value / step)))}"
            what = "whole number" if step == 1 else f"multiple of {step}"
            raise item.error(f"{name}: a {what} from {step} to 65536 must stand here, found {item.shown()}{near}")
        return value

    return parse


def _share(item: Item) -> Fraction | None:
    try:
        return read_share(item.text)
    except ValueError:
        return None


def _kv_heads(item: Item) -> Option:
    share = _share(item)
    if share is None or not 0 < share <= 1:
        raise item.error(
            "kv_heads: a share of the attention heads above 0 and up to 1, like 1/4, must stand here, "
            f"found {item.shown()}" + ("; 1/N of the heads is written 1/N" if share is not None and share > 1 else "")
        )
    return str(share)


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

_COUNT_SCHEMA = {"type": "integer", "minimum": 1, "maximum": 65_536}

_WIDTH_SCHEMA = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+(/[0-9]+)?$"}],
}
PARALLEL_MEANINGS = {
    "norm": "parallel hybrid: an RMSNorm over each half before they fuse, or none",
    "scale": "parallel hybrid: what multiplies a half: none, a learned vector, one weight on the attention (diff), or "
    "a gate a token",
    "fusion": "parallel hybrid: add, difference (Mamba less attention), or concat",
    "value": "parallel hybrid: Mamba's input of its own (separate), or the attention's values (joint)",
    "output": "parallel hybrid: one output projection after the fusion (joint), or one a half before it (separate)",
}


def _named(name: str, known: Collection[str], meaning: str) -> Key:
    return Key(_one_of(name, known), meaning, {"enum": list(known)})


KEYS: dict[str, Key] = {
    "ratio": Key(
        _ratio,
        "attention : Mamba layers (intra: parallel : Mamba); 1:0 and 0:1 are stacks of one kind",
        {"type": "string", "pattern": "^[0-9]+:[0-9]+$"},
    ),
    "placement": Key(
        _placement,
        "where the attention (intra: parallel) layers stand: runs at the front, middle or end, spread evenly, at both "
        "ends and in the middle, or a list of positions from 0 (first layer) to 1 (last), which fixes their number too",
        {
            "anyOf": [
                {"enum": [*PLACEMENTS, *SYNONYMS]},
                {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 1},
            ]
        },
    ),
    LAYOUT: Key(
        _layout,
        "a letter a layer (A or T attention, S sliding window, M Mamba-2 or the mixer in its place, H parallel; beside "
        "M also 1 Mamba-1, 3 Mamba-3, G gated DeltaNet), kept in place and share at other depths; several with a space "
        "between are one model at several depths",
        {"type": "string", "pattern": "^[ATSMH13Gatsmhg ]+$"},
    ),
    "mixer": _named("mixer", RECURRENT, "what M stands for"),
    "ffn": _named("ffn", FEED_FORWARD, "the feed-forward network of every layer; moe: a mixture of experts"),
    "experts": Key(
        _whole("experts", 1), "ffn moe: experts that a router picks from, beside a shared one", _COUNT_SCHEMA
    ),
    "experts_active": Key(_whole("experts_active", 1), "ffn moe: how many of them a token uses", _COUNT_SCHEMA),
    "d_state": Key(
        _whole("d_state", 8),
        "state size per channel of the recurrent layers (gated_deltanet: channels of a head's key)",
        {"type": "integer", "minimum": 8, "multipleOf": 8},
    ),
    "head_dim": Key(
        _whole("head_dim", 8),
        "channels of a head of Mamba-2 and Mamba-3",
        {"type": "integer", "minimum": 8, "multipleOf": 8},
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
    "position": _named("position", ("rope", "none"), "position encoding of the attention layers"),
    "window": Key(
        _tokens("window"),
        "sliding window of the attention layers: none, a share of the context (1/16) or a number of tokens",
        _TOKENS_SCHEMA,
    ),
    "sinks": Key(
        _tokens("sinks"), "first tokens that stay visible beside the window: none, a share or a number", _TOKENS_SCHEMA
    ),
    "halves": _named("halves", HALVES, "parallel hybrid: attention and Mamba, or two equal halves of one kind"),
    "attention_share": Key(
        _attention_share,
        "parallel hybrid: the share s of the width that queries and keys have; Mamba has 1 - s before expansion",
        _WIDTH_SCHEMA,
    ),
    "attention_width": Key(
        _width("attention_width"),
        "parallel hybrid: width of queries, a share of the model's or channels",
        _WIDTH_SCHEMA,
    ),
    "mamba_width": Key(
        _width("mamba_width"), "parallel hybrid: width of Mamba before expansion, a share or channels", _WIDTH_SCHEMA
    ),
    "value_width": Key(
        _width("value_width"), "parallel hybrid: width of the values; left out, the model's own", _WIDTH_SCHEMA
    ),
    "preset": _named("preset", PRESETS, "parallel hybrid: norm, scale, fusion, value and output of a known model"),
    **{name: _named(name, known, PARALLEL_MEANINGS[name]) for name, known in PARALLEL_AXES.items()},
}
