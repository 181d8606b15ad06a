"""Values of a study file's sections: counts and times with units, fields of a dataclass, a scale, a budget."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any

from hybrid_nas.budget import FLOPS, STEP_S, YEAR_S, Budget
from hybrid_nas.presets import PROXIES
from hybrid_nas.scale import LARGEST_DIMENSION, SCALES, Scale
from hybrid_nas.yaml_file import Item, nearest

UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
COUNT = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?(?:e\+?[0-9]{1,2})?)\s*([kmbg]?|[kmg]ib)", re.IGNORECASE)
LARGEST_COUNT = 1e24
TIMES = {"s": 1, "min": 60, "h": 3600, "d": 86400}
TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|min|h|d)?")


def count_of(item: Item, key: str) -> int:
    """A whole number, or one with a unit or an exponent: 200k, 1.5M, 1B, 64 MiB, 1e9."""
    match = COUNT.fullmatch(item.text.strip()) if isinstance(item.value, str) else None
    value: float | None = None
    if match:
        value = float(match[1]) * UNITS[match[2].lower()]
    elif isinstance(item.value, int | float) and not isinstance(item.value, bool):
        value = float(item.value)
    if value is None or not 0 <= value < LARGEST_COUNT or value != int(value):
        raise item.error(
            f"{key}: a whole number, or one like 200k, 1.5M, 1e9 or 64 MiB, below 1e24 must stand here, found "
            f"{item.shown()}"
        )
    return int(value)


def context_of(text: str) -> int:
    """Tokens, as --context of a command gives them; ValueError below 1."""
    tokens = count_of(Item(text, "--context", None, text), "context")
    if tokens < 1:
        raise ValueError(f"--context: must be at least 1 token, found {tokens}")
    return tokens


def seconds_of(item: Item, key: str) -> float:
    """A time above 0: seconds, or one with a unit: 90s, 10min, 2h."""
    match = TIME.fullmatch(str(item.value).strip())
    if match is None or not (seconds := float(match[1]) * TIMES[match[2] or "s"]):
        raise item.error(f"{key}: a time like 90s, 10min or 2h must stand here, found {item.shown()}")
    return seconds


def _field(cls: type, key: str, item: Item) -> Any:
    """The value for a dataclass field of that name, by the field's type."""
    kind = str(next(field.type for field in fields(cls) if field.name == key))
    if kind.startswith("tuple[str"):
        members = item.value if isinstance(item.value, list) else [item]
        names = [_name_of(member, key, item) for member in members]
        for i, name in enumerate(names):
            if name.count("(") > name.count(")"):
                raise item.error(f"{key}: {_half_name(names[i:])}")
        return tuple(names)
    if isinstance(item.value, list):
        if not kind.startswith("tuple"):
            raise item.error(f"{key}: one value must stand here, found a list; only the space's keys are choices")
        return tuple(_number(child, key, item) for child in item.value)
    if kind.startswith("tuple"):
        return (_number(item, key, item),)
    if item.value is None and "None" in kind:
        return None
    if kind.startswith("int"):
        return count_of(item, key)
    return _number(item, key, item) if kind.startswith("float") else item.value


def _name_of(item: Item, key: str, at: Item) -> str:
    if not isinstance(item.value, str):
        raise at.error(f"{key}: names must stand here, found {item.shown()}")
    return item.value


def _half_name(names: list[str]) -> str:
    """What is wrong with the first of `names`, which opens a parenthesis that it does not close."""
    end = next((i for i, name in enumerate(names) if name.endswith(")")), None)
    if not end or any("(" in name for name in names[1 : end + 1]):
        return f"the parenthesis of {names[0]!r} is left open; sizes are written NAME(size=16)"
    return (
        f"found {names[0]!r}: in a YAML list a comma ends a name, so one with two sizes stands in quotes, "
        f'"{", ".join(names[: end + 1])}"'
    )


def _number(item: Item, key: str, at: Item) -> float:
    if isinstance(item.value, bool) or not isinstance(item.value, int | float):
        raise at.error(f"{key}: a number must stand here, found {item.shown()}")
    return float(item.value)


def with_budget(proxy: Item | None, budget: Item) -> Item:
    """The section proxy with the keys of the section budget in it: one of the two holds a key."""
    entries = budget.keys([field.name for field in fields(Budget)], "budget")
    own = {} if proxy is None else proxy.value if isinstance(proxy.value, dict) else {"preset": proxy}
    for key in entries.keys() & own.keys():
        raise entries[key].error(f"budget: proxy sets {key} too; leave one of the two out")
    return Item({**own, **entries}, budget.source, budget.line if proxy is None else proxy.line)


def with_vocab(proxy: Item | None, bpe: Item) -> Item:
    """The section proxy, with the number of symbols of the text as its `vocab` where it has none. FileError where it
    has fewer."""
    own = {} if proxy is None else proxy.value if isinstance(proxy.value, dict) else {"preset": proxy}
    symbols = count_of(bpe, "bpe")
    if "vocab" in own and count_of(own["vocab"], "vocab") < symbols:
        raise own["vocab"].error(
            f"proxy: vocab must be at least the {symbols:,} symbols of data: bpe, found {own['vocab'].shown()}; left "
            "out it is as many"
        )
    return Item({"vocab": bpe, **own}, bpe.source, bpe.line if proxy is None else proxy.line)


def read_proxy(item: Item | None) -> tuple[Scale, Budget]:
    """The section proxy: a scale, and a budget beside it."""
    budget_keys = [field.name for field in fields(Budget)]
    if item is None:
        return SCALES["proxy"], Budget()
    if not isinstance(item.value, dict):
        return _proxy_preset(item)
    scale_keys = [field.name for field in fields(Scale)]
    entries = item.keys(["preset", *scale_keys, *budget_keys], "proxy")
    if "flops" in entries and "tokens" in entries:
        raise entries["flops"].error("proxy: flops gives each candidate its own tokens; leave one of the two out")
    scale, budget = _proxy_preset(entries.pop("preset")) if "preset" in entries else (SCALES["proxy"], Budget())
    budget = build(Budget, {key: entries.pop(key) for key in budget_keys if key in entries}, item, budget)
    scale = _changed(scale, entries, item, "proxy")
    _check_length(scale, budget, item)
    if budget.tasks:
        # No candidate has more tokens than its FLOPs buy at 6 a parameter.
        most = budget if budget.flops is None else replace(budget, tokens=int(budget.flops / (6 * scale.params)))
        try:
            most.check_tasks(scale.context)
        except ValueError as error:
            raise item.value.get("tasks", item).error(str(error)) from None
    return scale, budget


def _check_length(scale: Scale, budget: Budget, item: Item) -> None:
    """FileError for a training of less than a step, or of more than a year."""
    step = budget.batch * scale.context
    place = next((item.value[key] for key in ("flops", "tokens", "batch", "context") if key in item.value), item)
    if budget.flops is not None and budget.flops < (least := 6 * scale.params * step):
        raise place.error(
            f"flops: one step, {budget.batch} sequences of {scale.context} tokens, takes {least:.2g} FLOPs or more at "
            f"{scale.params:,} parameters, so at least that must stand here, found {budget.flops:g}"
        )
    if budget.flops is None and budget.tokens < step:
        raise place.error(
            f"tokens: one step is {budget.batch} sequences of {scale.context} tokens, {step:,} in all, so at least "
            f"that must stand here, found {budget.tokens:,}"
        )
    if (years := budget.least_seconds(scale.params, scale.context) / YEAR_S) > 1:
        name, found = ("tokens", budget.tokens) if budget.flops is None else ("flops", budget.flops)
        raise place.error(
            f"{name}: one training of {found:.3g} {name} takes {years:,.1f} years or more, at {FLOPS:g} FLOP/s and "
            f"{STEP_S * 1000:g} ms a step; a year's, about {found / years:.2g}, is the most that may stand here"
        )


def _proxy_preset(item: Item) -> tuple[Scale, Budget]:
    """A proxy by name, or a scale by name with the default budget."""
    if isinstance(item.value, str) and item.value in PROXIES:
        return PROXIES[item.value]
    if not isinstance(item.value, str) or item.value not in SCALES:
        raise item.error(f"proxy: unknown scale {item.shown()}; {nearest(str(item.value), (*SCALES, *PROXIES))}")
    return SCALES[item.value], Budget()


def build(cls: type, entries: dict[str, Item], item: Item, default: Any) -> Any:
    """`default` with the fields that `entries` set. FileError at the entry that is wrong."""
    values = {key: _field(cls, key, entry) for key, entry in entries.items()}
    try:
        return replace(default, **values)
    except (ValueError, TypeError) as error:
        places = [entry for key, entry in entries.items() if key in str(error)]
        raise (places[0] if places else item).error(str(error)) from None


def read_scale(item: Item | None, section: str, default: str) -> Scale:
    """A preset by name, or a preset with changes."""
    if item is None:
        return SCALES[default]
    if not isinstance(item.value, dict):
        return _preset(item, section)
    entries = item.keys(["preset", *(field.name for field in fields(Scale))], section)
    base = _preset(entries.pop("preset"), section) if "preset" in entries else SCALES[default]
    return _changed(base, entries, item, section)


def _changed(base: Scale, entries: dict[str, Item], item: Item, section: str) -> Scale:
    """`base` with changes. A changed width takes the heads and the FFN along."""
    if not entries:
        return base
    values = {key: _field(Scale, key, entry) for key, entry in entries.items()}
    width, head_dim = values.get("width", base.width), values.get("head_dim", base.head_dim)
    if (width, head_dim) != (base.width, base.head_dim) and "heads" not in values:
        if not head_dim or width % head_dim:
            place = entries.get("width") or entries["head_dim"]
            raise place.error(f"{section}: width must be a multiple of head_dim, found {width} and {head_dim}")
        values["heads"] = width // head_dim
        if "kv_heads" not in values:
            share = max(1, round(values["heads"] * base.kv_heads / base.heads))
            values["kv_heads"] = next(
                k for k in range(min(share, LARGEST_DIMENSION), 0, -1) if values["heads"] % k == 0
            )
    if values.get("heads", base.heads) != base.heads:
        values.setdefault("parallel_heads", None)
    if width != base.width and "ffn_hidden" not in values:
        values["ffn_hidden"] = max(8, 8 * round(base.ffn_hidden * width / base.width / 8))
    changed = {key: value for key, value in values.items() if value != getattr(base, key)}
    if changed.keys() - {"context", "vocab", "name"} and "ffn_exact_within" not in values:
        changed["ffn_exact_within"] = 0.0
    try:
        scale = base.with_changes(**changed) if changed else base
    except (ValueError, TypeError) as error:
        places = [entry for key, entry in entries.items() if key in str(error)]
        raise (places[0] if places else item).error(str(error)) from None
    return scale


def _preset(item: Item, section: str) -> Scale:
    if not isinstance(item.value, str) or item.value not in SCALES:
        raise item.error(f"{section}: unknown scale {item.shown()}; {nearest(str(item.value), SCALES)}")
    return SCALES[item.value]
