"""Reading a search space from the entries of a study file: what stands together, and what cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from itertools import product

from hybrid_nas.answers import design_of
from hybrid_nas.architecture import PARALLEL_AXES
from hybrid_nas.design import PLACEMENTS, Ratio
from hybrid_nas.options import KEYS
from hybrid_nas.parts import RECURRENT_LETTERS
from hybrid_nas.questions import (
    DEFAULTS,
    LAYOUT,
    POSITIONS,
    PRESETS,
    QUESTIONS,
    Answers,
    Family,
    Option,
)
from hybrid_nas.space import SearchSpace
from hybrid_nas.yaml_file import Item, nearest

FAMILIES: tuple[Family, ...] = ("inter", "intra", "hybrid")
NEEDS = {
    "ratio": "layers that are not all spelled by layouts",
    "placement": "a ratio that mixes two kinds of layers",
    "mixer": "a ratio with Mamba",
    "experts": "ffn: moe",
    "experts_active": "ffn: moe",
    "d_state": "a ratio with Mamba",
    "head_dim": "a ratio with Mamba, and a mixer that has heads (mamba2, mamba3)",
    "kv_heads": "a ratio with attention",
    "position": "a ratio with attention",
    "window": "a ratio with attention (or S in a layout)",
    "sinks": "a window",
}
PARALLEL = "a parallel hybrid: family intra or hybrid, or a layout with H"


def read_space(name: str, entries: dict[str, Item], root: Item) -> SearchSpace:
    """The space that these entries of a study file hold (`family` and `arms` among them). FileError where one of them
    cannot be meant."""
    entries = dict(entries)
    family = read_family(entries.pop("family", None))
    arms = entries.pop("arms", None)
    if arms is not None:
        return _read_arms(name, family, arms, entries)
    options: dict[str, tuple[Option, ...]] = {}
    for key, item in entries.items():
        members = list(item)
        if not members:
            raise item.error(
                f"{key}: the list is empty, so nothing can be chosen; "
                + ("write one, like 1:5" if key == "ratio" else "leave the key out to take the default")
            )
        if isinstance(item.value, dict):
            raise item.error(f"{key}: a value or a list of values must stand here, found a mapping")
        parse = KEYS[key].parse
        options[key] = tuple(dict.fromkeys(parse(_at(member, item)) for member in members))
    _explicit_positions(options, entries, root)
    space = SearchSpace(name, options, family)
    _check_layouts(space, entries)
    left_out = _check_parallel(options, entries)
    _check_unused(space, entries)
    return replace(space, left_out=left_out)


def read_family(item: Item | None) -> Family:
    for family in FAMILIES:
        if item is None or item.value == family:
            return family
    assert item is not None
    raise item.error(f"family: unknown family {item.shown()}; {nearest(str(item.value), FAMILIES)}")


def _at(member: Item, item: Item) -> Item:
    return member if member.line is not None else Item(member.value, item.source, item.line, member.text)


def _explicit_positions(options: dict[str, tuple[Option, ...]], entries: dict[str, Item], root: Item) -> None:
    """Explicit placements fix the number of attention layers, so they stand beside the ratios, as one more answer."""
    explicit = tuple(p for p in options.get("placement", ()) if p not in PLACEMENTS)
    named = tuple(p for p in options.get("placement", ()) if p in PLACEMENTS)
    if "ratio" not in options and not explicit and LAYOUT not in options:
        raise root.error("the space has no ratio; write one, like ratio: [1:3, 1:5]")
    if not explicit:
        return
    mixed = [r for r in options.get("ratio", ()) if Ratio.parse(str(r)).mixed]
    if mixed and not named:
        raise entries["placement"].error(
            f"placement: positions fix the number of attention layers by themselves, so ratio {mixed[0]} has no "
            f"placement left; leave that ratio out, or add one of {', '.join(PLACEMENTS)}"
        )
    options["ratio"] = (*options.get("ratio", ()), POSITIONS)
    options[POSITIONS] = explicit
    if named:
        options["placement"] = named
    else:
        del options["placement"]


def _check_layouts(space: SearchSpace, entries: dict[str, Item]) -> None:
    allowed = {"inter": "ASM", "intra": "HM", "hybrid": "ASMH"}[space.family]
    alone: dict[str, Option] = {}
    for layout in space.options.get(LAYOUT, ()):
        kinds = sorted(set(str(layout)) - {" "})
        if len(kinds) == 1 and alone.setdefault(kinds[0], layout) != layout:
            raise entries[LAYOUT].error(
                f"layout: {alone[kinds[0]]} and {layout} are one design, layers of {kinds[0]} alone, as many as the "
                "parameter budget buys; leave one of them out"
            )
        named = sorted(set(str(layout)) & (RECURRENT_LETTERS.keys() - {"M"}))
        if len(named) == 1 and "M" not in str(layout):
            raise entries[LAYOUT].error(
                f"layout: {layout} has one kind of recurrent layer, which a space calls M; write "
                f"{str(layout).replace(named[0], 'M')} and mixer: {RECURRENT_LETTERS[named[0]]}"
            )
        other = set(str(layout)) - {" ", *allowed, *RECURRENT_LETTERS}
        if other:
            raise entries[LAYOUT].error(
                f"layout: {layout} has {sorted(other)[0]}, which family {space.family} does not hold; write family: "
                + ("intra or hybrid" if space.family == "inter" else "hybrid")
            )


def _check_unused(space: SearchSpace, entries: dict[str, Item]) -> None:
    """A key that no design of the space would use is a mistake in the file, not a default."""
    asked = space.asked()
    if POSITIONS in asked:
        asked.add("placement")
    for key in entries:
        if key not in asked:
            raise entries[key].error(f"{key} means nothing in this space: it needs {NEEDS.get(key, PARALLEL)}")


def _check_parallel(options: dict[str, tuple[Option, ...]], entries: dict[str, Item]) -> dict[str, int]:
    """Every combination of the parallel hybrid's options must be one that can be built, or one that crossing lists
    makes and that means nothing: why such are left out -> how many."""
    if "preset" in options:
        for name in PARALLEL_AXES:
            if name in options:
                raise entries[name].error(f"{name} is what preset says; leave one of the two out")
    names = [n for n in ("attention_share", "attention_width", "mamba_width", "value_width", *PARALLEL_AXES, "preset")
             if n in options]  # fmt: skip
    left_out: Counter[str] = Counter()
    for chosen in product(*(options[name] for name in names)):
        answers: dict[str, Option] = dict(zip(names, chosen, strict=True))
        lone = [n for n in ("attention_share", "attention_width", "mamba_width") if str(answers.get(n)) in ("0", "1")]
        if lone and answers.get("value") == "joint" and len(options["value"]) > 1:
            left_out[f"value joint beside {lone[0]} {answers[lone[0]]}: one half alone has no values to share"] += 1
            continue
        if answers.get("fusion") == "concat" and max(len(options[n]) for n in ("fusion", "output") if n in options) > 1:
            if answers.get("output") == "separate" and "joint" in options["output"]:
                left_out["output separate beside fusion concat: halves side by side have one projection"] += 1
                continue
            answers.pop("output", None)  # concat takes joint alone, the others what the file says
        try:
            design_of({"family": "intra", "ratio": "1:1", **answers})
        except ValueError as error:
            message = str(error).partition(": ")[2]
            place = next((n for n in (*reversed(names),) if n in message.split()), names[0])
            raise entries[place].error(message) from None
    return dict(left_out)


def _read_arms(name: str, family: Family, arms: Item, shared: dict[str, Item]) -> SearchSpace:
    """Designs spelled out, one a mapping. Keys beside `arms` hold for every arm that they mean something to."""
    if not isinstance(arms.value, list) or not arms.value:
        raise arms.error("arms: a list of mappings must stand here, like - {ratio: 1:3, placement: end}")
    common = _scalars(shared)
    found: list[Answers] = []
    for number, arm in enumerate(arms, 1):
        entries = arm.keys(("family", *KEYS), f"arm {number}")
        own = read_family(entries.pop("family")) if "family" in entries else family
        answers = _scalars(entries)
        if POSITIONS in answers and "ratio" in entries:
            raise entries["ratio"].error(f"arm {number}: positions fix the number of layers; leave the ratio out")
        answers["family"] = LAYOUT if LAYOUT in answers else "inter" if own == "hybrid" else own
        if LAYOUT not in answers and "ratio" not in answers:
            answers |= {key: value for key, value in common.items() if key in ("ratio", POSITIONS, LAYOUT)}
            if LAYOUT in answers:
                answers["family"] = LAYOUT
            elif "ratio" not in answers:
                raise arm.error(f"arm {number} has no ratio; write one, like ratio: 1:3, or positions, or a layout")
        everything = {**common, **answers}
        asked: dict[str, Option] = {}
        for question in QUESTIONS:
            if question.name in everything and question.applies(asked):
                asked[question.name] = everything[question.name]
            elif question.name in DEFAULTS and question.applies(asked):
                asked[question.name] = DEFAULTS[question.name][0]
        for key in entries:
            means = POSITIONS if key == "placement" and POSITIONS in answers else key
            if means not in asked:
                raise entries[key].error(f"{key} means nothing in arm {number}: it needs {NEEDS.get(key, PARALLEL)}")
        try:
            design = design_of(asked)
        except ValueError as error:
            raise arm.error(f"arm {number}: {str(error).partition(': ')[2]}") from None
        earlier = [i for i, other in enumerate(found, 1) if design_of(other) == design]
        if earlier:
            raise arm.error(f"arm {number} is the same design as arm {earlier[0]}")
        found.append(asked)
    return SearchSpace(name, {}, family, tuple(found))


def _scalars(entries: Mapping[str, Item]) -> dict[str, Option]:
    """One answer a key; a list is a list of positions."""
    answers: dict[str, Option] = {}
    for key, item in entries.items():
        if isinstance(item.value, dict) or (isinstance(item.value, list) and key != "placement"):
            raise item.error(f"{key}: beside or in arms one value must stand here, found {item.shown()}")
        if key == "preset":
            answers |= PRESETS[str(KEYS[key].parse(item))]
            continue
        answers[key] = KEYS[key].parse(item)
        if key == "placement" and answers[key] not in PLACEMENTS:
            answers |= {"ratio": POSITIONS, POSITIONS: answers.pop(key)}
    return answers
