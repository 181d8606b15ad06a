"""Which choices a design makes, read from the design itself, so that a new key is a new choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import Any

from hybrid_nas.design import MAMBA2, PLACEMENTS, SWIGLU, Design
from hybrid_nas.halves import BOTH
from hybrid_nas.parts import ACTIVE, EXPERTS
from hybrid_nas.trial import Trial

Settings = dict[str, str]
"""Choice -> option, as text."""


def settings_of(design: Design) -> Settings:
    """The choices that apply to `design` and the option each takes, as text.

    Read from `to_dict`, so that a new key is a new choice. A key that is absent does not apply, unless the design has
    what it is about: then it is left at its default, which is an option like any other.
    """
    return dict(_settings_of(design))


@lru_cache(maxsize=50_000)
def _settings_of(design: Design) -> Settings:
    settings = {name: _text(value) for name, value in design.to_dict().items()}
    if not (design.has_attention or design.has_parallel):
        settings.pop("family", None)  # without attention there is no one place for it
    defaults = {"window": (design.has_attention, "full"), "kv_heads": (design.has_attention, "scale's own")}
    defaults["sinks"] = (design.window is not None, "0")
    defaults |= {"mixer": (design.mixer is not None, MAMBA2), "ffn": (True, SWIGLU)}
    defaults |= {"experts": (design.ffn == "moe", str(EXPERTS)), "experts_active": (design.ffn == "moe", str(ACTIVE))}
    defaults["halves"] = (design.has_parallel, BOTH)
    defaults |= {name: (name in design.reads, "scale's own") for name in ("d_state", "head_dim")}
    for name, (applies, default) in defaults.items():
        if applies:
            settings.setdefault(name, default)
    return settings


def merged(trials: Iterable[Trial]) -> Callable[[Trial], Settings]:
    """Settings in which choices that always go together are one: where every option of one comes with the same option
    of the other, nothing can tell their effects apart. `fusion` and `output` become `fusion and output`."""
    rows = [settings_of(trial.design) for trial in trials]
    names = sorted({name for row in rows for name in row})
    columns: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        seen: dict[str | None, int] = {}
        column = tuple(seen.setdefault(row.get(name), len(seen)) if name in row else -1 for row in rows)
        columns.setdefault(column, []).append(name)
    groups = [group for column, group in columns.items() if len(group) > 1 and len({*column} - {-1}) > 1]

    def settings(trial: Trial) -> Settings:
        row = settings_of(trial.design)
        for group in groups:
            if group[0] in row:
                row[" and ".join(group)] = " + ".join(row.pop(name) for name in group)
        return row

    return settings


def _text(value: Any) -> str:
    return ", ".join(_text(part) for part in value) if isinstance(value, list | tuple) else str(value)


def option_order(option: str) -> tuple[int, float, str]:
    """Sorts options as a person would: ratios from attention to Mamba, numbers by size, the rest by name."""
    left, colon, right = option.partition(":")
    if colon and left.isdecimal() and right.isdecimal() and (int(left) or int(right)):
        return 0, -int(left) / (int(left) + int(right)), option
    if option in PLACEMENTS:
        return 1, PLACEMENTS.index(option), option
    try:
        return 0, float(Fraction(option)), option
    except ValueError:
        return 2, 0.0, option
