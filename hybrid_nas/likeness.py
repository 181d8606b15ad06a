"""Whether the trainings of several files differ in size, tokens and seed alone, so that one law can hold for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybrid_nas.trial import Trial
from hybrid_nas.units import counted, listed

FREE = ("tokens", "flops", "learning_rate", "rungs", "probes", "replicates", "aggregate")
"""What budgets may differ in: how long, by which rule of the width (`_rates`), and what does not change the weights."""
OF_RECALL = ("recall_task", "recall_symbols", "tasks")
ALONE = "size, tokens and seed alone, so give files of one setting"
ROUNDED = 1.02  # by how much rates of one rule differ as they are typed


@dataclass(frozen=True)
class Source:
    """A file of trials; `setting` is what a table says of itself (`hybrid_nas.table_file`), None where nothing."""

    name: str
    trials: tuple[Trial, ...]
    setting: dict[str, Any] | None = None


def check(sources: Sequence[Source]) -> None:
    """ValueError names the first that differs in more than size, tokens and seed, and in what; or has no loss."""
    _recorded(sources)
    every = list(_placed(sources))
    if not every:
        raise ValueError(f"{listed(source.name for source in sources)}: no trial is in there")
    for place, trial in every:
        if not 0 < trial.values.get("loss", 1.0) < math.inf:
            raise ValueError(f"{place}: loss must be a number above 0, found {trial.values['loss']}")
    where, first = every[0]
    base = _setting(first)
    for place, trial in every[1:]:
        for name, value in _setting(trial).items():
            if value != base.get(name):
                picks = f"--setting {name.removeprefix('budget.')}={_plain(base.get(name))}"
                raise ValueError(
                    f"{place}: {name} is {_shown(value)}, and {_shown(base.get(name))} in {where}; trainings of one "
                    f"law differ in {ALONE}, or pick one with {picks}"
                )
    _models(every)
    _rates(every)


def _placed(sources: Sequence[Source]) -> Iterator[tuple[str, Trial]]:
    for source in sources:
        for trial in source.trials:
            yield f"{source.name}, trial {trial.number}", trial


def _setting(trial: Trial) -> dict[str, Any]:
    budget = trial.budget.to_dict()
    free = (*FREE, *OF_RECALL) if not trial.budget.recall_share else FREE
    kept = {f"budget.{name}": value for name, value in budget.items() if name not in free}
    return {"vocabulary": trial.proxy.vocab, **kept}


def picked(sources: Sequence[Source], settings: Sequence[str]) -> list[Source]:
    """Their trials with every one of `settings`, KEY=VALUE each. ValueError where none has one, with what there is."""
    for told in settings:
        key, _, wanted = (part.strip() for part in told.partition("="))
        found: dict[str, list[Trial]] = {}
        known: set[str] = set()
        for _, trial in _placed(sources):
            values = _values(trial)
            known |= values.keys()
            if key in values:
                found.setdefault(_plain(values[key]), []).append(trial)
        if known and key not in known:
            raise ValueError(f"--setting {told}: KEY is one of {listed(sorted(known))}, as in --setting batch=8")
        if found and wanted not in found:
            there = "; ".join(f"{value} in {counted(len(trials), 'trial')}" for value, trials in found.items())
            raise ValueError(f"--setting {told}: no trial has that; {key} is {there}")
        kept = {id(trial) for trial in found.get(wanted, ())}
        sources = [replace(one, trials=tuple(t for t in one.trials if id(t) in kept)) for one in sources]
    return [one for one in sources if one.trials] or list(sources)


def _values(trial: Trial) -> dict[str, Any]:
    """What --setting can pick by: what `_setting` holds, the peak learning rate, and the dimensions of the proxy."""
    budget = {name.removeprefix("budget."): value for name, value in _setting(trial).items()}
    return {**budget, "learning_rate": trial.budget.peak(trial.proxy.width), "width": trial.proxy.width}


def _plain(value: Any) -> str:
    """As it is typed after KEY=."""
    if isinstance(value, list):
        return ",".join(map(_plain, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else "none" if value is None else f"{value}"


def _recorded(sources: Sequence[Source]) -> None:
    """Text, context and target, which the trials do not hold."""
    if len(sources) > 1 and (silent := [source.name for source in sources if source.setting is None]):
        raise ValueError(
            f"{silent[0]}: does not say on which text it was trained, so it cannot be set beside others; "
            "`hybrid-nas table` writes files that say it, or give this file alone"
        )
    said = [(source.name, _told(source.setting)) for source in sources if source.setting is not None]
    for name, told in said[1:]:
        for key, value in told.items():
            if value != said[0][1][key]:
                raise ValueError(
                    f"{name}: trained with another {key} than {said[0][0]} ({_shown(value)}, not "
                    f"{_shown(said[0][1][key])}); losses of one law are those of one text, context and target"
                )


def _told(setting: dict[str, Any]) -> dict[str, Any]:
    """As a person reads it: the text by the start of its fingerprint."""
    target = {f"target.{name}": value for name, value in setting["target"].items()}
    return {
        "text": str(setting["text"])[:12],
        "context": setting["proxy"]["context"],
        "target": setting["target"]["name"],
    } | target


def _models(every: Sequence[tuple[str, Trial]]) -> None:
    """A design is one model at a width and depth: another state size, say, is no other scale."""
    found: dict[tuple[str, int, int], tuple[str, Trial]] = {}
    for place, trial in every:
        where, first = found.setdefault((trial.target.id, trial.proxy.width, trial.proxy.depth), (place, trial))
        if first.proxy.id != trial.proxy.id:
            raise ValueError(
                f"{place}: {_unlike(trial.proxy.to_dict(), first.proxy.to_dict())} in {where}, which is the same "
                f"design at the same width and depth; trainings of one law differ in {ALONE}"
            )


def _unlike(one: Any, other: Any, name: str = "") -> str:
    """The first value that differs, by its name."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = [(f"{name}.{key}".lstrip("."), one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = [(f"{name}[{i}]", one[i], other[i]) for i in range(len(one))]
    else:
        return f"{name} is {one}, and {other}"
    return next(_unlike(mine, theirs, key) for key, mine, theirs in pairs if mine != theirs)


def _rates(every: Sequence[tuple[str, Trial]]) -> None:
    """One learning rate, or one that falls as 1 / width."""
    found: dict[tuple[int, float], str] = {}
    for place, trial in every:
        found.setdefault((trial.proxy.width, trial.budget.peak(trial.proxy.width)), place)
    fixed = [rate for _, rate in found]
    falling = [width * rate for width, rate in found]
    if all(max(values) > ROUNDED * min(values) for values in (fixed, falling)):
        told = "; ".join(f"{rate:g} at width {width} ({place})" for (width, rate), place in sorted(found.items()))
        raise ValueError(
            f"learning rates follow no one rule: {told}; one law takes one rate, or one that falls as 1 / width, as "
            "it does where learning_rate is left out; --setting learning_rate=... picks the trainings with one"
        )
